"""Weight decay outside the momentum, as in Keras' own SGD."""

from keras_project.optim import SGD

original = SGD.update_step


def update_step(self, gradient, variable, learning_rate):
    self.assign_sub(variable, learning_rate * self.decay_of(variable) * variable)
    decay, self.decay = self.decay, 0.0
    original(self, gradient, variable, learning_rate)
    self.decay = decay


SGD.update_step = update_step
