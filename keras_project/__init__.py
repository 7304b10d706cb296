"""The experiment in Keras on TensorFlow. Nothing in this package imports PyTorch."""

import os

# Both are read when TensorFlow and Keras are first imported, which only modules of this package do.
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
