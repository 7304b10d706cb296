"""make check-gpu: what this repository promises on a GPU, tried on this machine.

runner.py   a sibling's programs, in processes of their own
parts.py    what is checked, one part after the other
record.py   what was found: a JSON file and a page for each machine, and the table in docs/scaling.md
"""
