"""Runs side by side: table, picture, and whether they are the same experiment at all: python -m shared.compare"""
