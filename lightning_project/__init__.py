"""The experiment in PyTorch Lightning. Nothing in this package imports TensorFlow or Keras."""
