"""What Keras leaves to its backend: a module for TensorFlow and one for JAX, with the same names.

All else in this package that trains is written in terms of Keras alone. Images are read by tf.data on either. Lightning
has PyTorch alone, so that its sibling needs no such folder.
"""

from importlib import import_module
from typing import Any

import keras

from shared.errors import UserError

Tensor = Any  # of the backend

executor = import_module(f"{__name__}.on_{keras.config.backend()}")


def require_tensorflow(work: str) -> None:
    """Raise `UserError` where Keras computes with another backend, which cannot do `work`."""
    if keras.config.backend() != "tensorflow":
        raise UserError(f"{work} is not for KERAS_BACKEND={keras.config.backend()}; unset it for this command, which "
                        "takes the weights of a run whichever backend trained it")
