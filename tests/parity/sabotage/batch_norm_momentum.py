"""Keras' default momentum of BatchNorm, 0.99, which is PyTorch's 0.01."""

from keras_project.models.layers import BatchNorm

original = BatchNorm.__init__
BatchNorm.__init__ = lambda self, **options: original(self, **{**options, "momentum": 0.99})
