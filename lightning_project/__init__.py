"""The experiment in PyTorch Lightning. Nothing in this package imports TensorFlow or Keras."""

from shared.machine.environment import refuse_variables

# Lightning fills arguments of its Trainer from them.
refuse_variables("PL_TRAINER_")
