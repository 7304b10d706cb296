"""The experiment in PyTorch Lightning. Nothing in this package imports TensorFlow or Keras."""

import os

from shared.machine.environment import refuse_variables

# Lightning fills arguments of its Trainer from them.
refuse_variables("PL_TRAINER_")
# A thread of PyTorch that waits for another one keeps its core busy for milliseconds. Where readers of images or other
# work want that core, steps take three times as long. This is read when PyTorch is first imported.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "1000"
