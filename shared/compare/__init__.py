"""Comparing runs in a table and a picture, and whether they are the same experiment: python -m shared.compare"""
