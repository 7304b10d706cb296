"""Proof that both siblings run the same experiment: a ladder of nine rungs, each compared between two processes.

request.py    the tasks that both siblings are given, and the form of their answers
plan.py       the tasks of each rung, as configs
pictures.py   a small folder of image files that decoders treat differently
findings.py   an answer, the comparison of two arrays in it, and its result
ladder.py     what is compared on each rung, and how close it has to be
scores.py     the last rung: scores against scikit-learn's
__main__.py   the command: runs both siblings, prints the table, writes the report

Nothing here imports a framework. lightning_project/probe.py and keras_project/probe.py answer the tasks, by the
siblings' own data, models, optimizers and `train`.
"""
