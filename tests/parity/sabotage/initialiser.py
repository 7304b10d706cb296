"""Glorot's uniform kernels, Keras' default."""

import numpy as np

from shared.weights import initial

original = initial.draw_initial_tensor


def draw_initial_tensor(name, shape, seed):
    if len(shape) != 4:
        return original(name, shape, seed)
    limit = np.sqrt(6 / ((shape[0] + shape[1]) * shape[2] * shape[3]))
    return np.random.default_rng(seed).uniform(-limit, limit, shape).astype(np.float32)


initial.draw_initial_tensor = draw_initial_tensor
