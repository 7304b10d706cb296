"""Weight decay outside the momentum, as in Keras' own SGD."""

import keras

from keras_project.optim import SGD

original = SGD.update_step


def update_step(self, gradient, variable, learning_rate):
    self.assign_sub(variable, keras.ops.cast(learning_rate, variable.dtype) * self.decay_of(variable) * variable)
    decay, self.weight_decay = self.weight_decay, None
    original(self, gradient, variable, learning_rate)
    self.weight_decay = decay


SGD.update_step = update_step
