"""The experiment in Keras on TensorFlow, or on JAX where KERAS_BACKEND=jax. Nothing in this package imports PyTorch."""

import json
import os
import platform
import sys
from pathlib import Path

from shared.errors import UserError
from shared.machine.console import drop_start_up_lines
from shared.machine.environment import refuse_variables

BACKENDS = ("tensorflow", "jax")


def choose_backend() -> str:
    """What Keras computes with: KERAS_BACKEND, or else TensorFlow.

    Raises:
        UserError: where KERAS_BACKEND or keras.json asks for another backend, or Keras computes with one already.
    """
    wanted = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if wanted not in BACKENDS:
        raise UserError(f"KERAS_BACKEND={wanted} is not for this repository; unset it, or set one of "
                        f"{', '.join(BACKENDS)}")
    file = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "keras.json"
    try:
        configured = json.loads(file.read_text(encoding="utf-8")).get("backend", wanted)
    except (OSError, ValueError, AttributeError):  # Keras takes what it cannot read for a file without settings
        configured = wanted
    if configured != wanted and not os.environ.get("KERAS_BACKEND"):
        raise UserError(f"{file} says backend {configured!r}, which this repository does not follow; set KERAS_BACKEND "
                        f"to one of {', '.join(BACKENDS)} for this command, or take the line out of the file")
    if "keras" in sys.modules and sys.modules["keras"].config.backend() != wanted:
        raise UserError(f"Keras computes with {sys.modules['keras'].config.backend()} in this process already; start "
                        f"another one, with KERAS_BACKEND={wanted}")
    return wanted


# Keras ends `fit` early by them.
refuse_variables("KERAS_MAX_")
# These are read when TensorFlow and Keras are first imported, which only modules of this package do.
os.environ["KERAS_BACKEND"], os.environ["KERAS_NNX_ENABLED"] = choose_backend(), "false"
os.environ.pop("TF_USE_LEGACY_KERAS", None)  # keras_cv would look for Keras 2
# TensorFlow turns oneDNN on by itself only where a CPU has AVX-512 VNNI or AMX. PyTorch uses it on all, and on an AMD
# EPYC with AVX2 the quick start trained 4.7 times as fast with it.
if platform.machine() in ("x86_64", "AMD64"):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# What TensorFlow logs at its start says nothing about the training: which instructions it was built for, and that a
# machine without a GPU has none. Whoever wants to see it sets the variable to 0.
try:
    with drop_start_up_lines(os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2") >= "2"):
        import keras  # noqa: F401  this imports TensorFlow
        import tensorflow as tf

        tf.config.list_physical_devices("GPU")
except ModuleNotFoundError as error:
    if error.name not in ("jax", "jaxlib"):
        raise
    raise UserError(f"KERAS_BACKEND=jax, and {error.name} is not installed here; install the extra jax, or unset "
                    "KERAS_BACKEND") from None
except (AssertionError, ValueError) as error:
    if isinstance(error, ValueError) and "configuration" not in str(error):
        raise  # TensorFlow asserts and Keras says "Invalid ... configuration" where a value in keras.json is refused
    raise UserError(f"{os.environ.get('KERAS_HOME', '~/.keras')}/keras.json: {error or 'a value is refused'}; delete "
                    "the file, since every setting in it that matters is made by this repository") from error
