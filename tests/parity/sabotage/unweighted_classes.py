"""A loss that forgets the weights of the classes."""

from keras_project.losses import FocalLoss

FocalLoss.weigh = lambda self, values: values
