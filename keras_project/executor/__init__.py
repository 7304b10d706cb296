"""What Keras leaves to its backend: a module for TensorFlow and one for JAX, with the same names.

All else in this package that trains is written in terms of Keras alone. Images are read by tf.data on either.
"""

from importlib import import_module
from typing import Any

import keras

Tensor = Any  # of the backend

executor = import_module(f"{__name__}.on_{keras.config.backend()}")
