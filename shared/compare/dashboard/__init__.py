"""A dashboard of W&B made by code, a workspace and a report: python -m shared.dashboard"""
