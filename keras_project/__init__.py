"""The experiment in Keras on TensorFlow. Nothing in this package imports PyTorch."""

import os
import platform

from shared.errors import UserError
from shared.machine.console import drop_start_up_lines
from shared.machine.environment import refuse_variables

# Keras ends `fit` early by them.
refuse_variables("KERAS_MAX_")
# These are read when TensorFlow and Keras are first imported, which only modules of this package do.
os.environ["KERAS_BACKEND"], os.environ["KERAS_NNX_ENABLED"] = "tensorflow", "false"
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
except (AssertionError, ValueError) as error:
    if isinstance(error, ValueError) and "configuration" not in str(error):
        raise  # TensorFlow asserts and Keras says "Invalid ... configuration" where a value in keras.json is refused
    raise UserError(f"{os.environ.get('KERAS_HOME', '~/.keras')}/keras.json: {error or 'a value is refused'}; delete "
                    "the file, since every setting in it that matters is made by this repository") from error
