"""Many trainings from one command: a search over the keys of the schema, or a grid of them, in either sibling or both.

definition.py  the file of a sweep, checked by the schema
space.py       the keys that are searched, and what each may be
training.py    a process of train.py: started, followed, stopped, resumed
studies.py     what was tried and found, in Optuna's store, a study for each sibling
sampler.py     which values come next
search.py      the trials of a sweep, one after the other or several at once
results.py     what has been found, and whether the best setting of one sibling is the best of the other
report.py      what is written at the end; picture.py draws it
grid.py        all combinations of some values, without search
wandb_file.py  the same sweep as W&B's own commands run it
"""
