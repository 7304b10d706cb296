"""Models by name, and the way of their weights to and from the neutral names."""

import keras
import numpy as np

from keras_project.models.resnet import resnet18
from shared.config import Config
from shared.datasets import Data
from shared.weights import Shapes, Weights

MODELS = {"resnet18": resnet18}

# A layer is called what its module is called in PyTorch; its variables are called what Keras calls them.
NEUTRAL = {"kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias", "moving_mean": "running_mean",
           "moving_variance": "running_var"}


def build_model(config: Config, data: Data) -> keras.Model:
    """An untrained model for the images and classes of `data`."""
    return MODELS[config.model.name](data.channels, len(data.classes), stem_of(config, data.image_size),
                                     data.image_size)


def stem_of(config: Config, image_size: int) -> str:
    return config.model.stem if config.model.stem != "auto" else "small" if image_size <= 64 else "large"


def neutral_state(model: keras.Model) -> dict[str, keras.Variable]:
    """The variables of the model by their names in the neutral format, in the order of the layers."""
    return {f"{layer.name}.{NEUTRAL[variable.name]}": variable for layer in model.layers for variable in layer.weights}


def to_neutral(tensor: np.ndarray) -> np.ndarray:
    """Kernels in PyTorch's layout: (H, W, in, out) to (out, in, H, W), (in, out) to (out, in)."""
    return np.ascontiguousarray(tensor.transpose(3, 2, 0, 1) if tensor.ndim == 4 else tensor.T)


def from_neutral(tensor: np.ndarray) -> np.ndarray:
    """The inverse of `to_neutral`."""
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T


def neutral_shapes(model: keras.Model) -> Shapes:
    return {name: to_neutral(np.empty(variable.shape, np.bool_)).shape
            for name, variable in neutral_state(model).items()}


def neutral_weights(model: keras.Model) -> Weights:
    """Copies of the model's weights as NumPy arrays."""
    return {name: to_neutral(variable.numpy()) for name, variable in neutral_state(model).items()}


def load_weights(model: keras.Model, weights: Weights) -> None:
    """Copy neutral weights into the model, whose names and shapes must be the same."""
    state = neutral_state(model)
    assert state.keys() == weights.keys()
    for name, variable in state.items():
        variable.assign(from_neutral(weights[name]))


def parameter_count(model: keras.Model) -> int:
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
