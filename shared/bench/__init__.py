"""Measuring speed and memory: python -m shared.bench, python -m shared.bench.models"""
