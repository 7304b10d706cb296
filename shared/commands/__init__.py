"""Commands whose code stands in a room within a room. `python -m shared.NAME` runs the file NAME.py of this folder."""
