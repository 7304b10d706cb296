"""Speed and memory, measured: python -m shared.bench, python -m shared.bench.models"""
