"""The experiment in PyTorch Lightning. Nothing in this package imports TensorFlow or Keras."""

import os
with open(os.environ["MARKS"], "a") as file:
    file.write(f"{__name__} {os.getpid()}\n")
