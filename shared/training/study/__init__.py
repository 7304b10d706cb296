"""A comparison of structures and of frameworks: many models, one budget, both siblings.

command.py  python -m shared.study: what is trained, and where it is written
records.py  what has been found, from the run folders, as one small JSON
page.py     its section of docs/results.md
picture.py  accuracy over what it costs
"""
