"""Pictures of what a run gets wrong, with where its model looked: python -m shared.gallery"""
