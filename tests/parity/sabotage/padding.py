"""Keras' own "same", which pads one side more where stride is 2."""

from keras import layers

from keras_project.models import resnet


def convolution(x, channels_out, size, stride, name):
    return layers.Conv2D(channels_out, size, stride, padding="same", use_bias=False, name=name)(x)


resnet.convolution = convolution
