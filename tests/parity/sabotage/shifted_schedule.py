"""A learning rate that is one step ahead, as from an iteration counter that counts from 1."""

from keras_project.optim import TableSchedule

original = TableSchedule.__call__
TableSchedule.__call__ = lambda self, step: original(self, step + 1)
