"""Proof that both siblings run the same experiment: a ladder of nine rungs, each compared between two processes.

request.py    what the siblings are asked to leave, and how their probes answer
plan.py       the tasks of each rung, as configs
pictures.py   a small folder of image files that are awkward to decode
ladder.py     what is compared on each rung, and how close it has to be
__main__.py   the command: runs both siblings, prints the table, writes it as Markdown

Nothing here imports a framework. The siblings' halves are lightning_project/probe.py and keras_project/probe.py, which
run the siblings' own data, models, optimizers and `train`.
"""
