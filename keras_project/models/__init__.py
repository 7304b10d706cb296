"""Models by name, and the way of their weights to and from the neutral names."""

import keras
import numpy as np

from keras_project.models import efficientnet, resnet, vit
from keras_project.models.neutral import neutral_state
from shared.config import Config
from shared.datasets import Data
from shared.models import family_of
from shared.weights import Shapes, Weights

# By the first part of `model.name`.
MODELS = {"resnet": resnet.build_resnet, "efficientnet": efficientnet.build_efficientnet, "vit": vit.build_vit}


def build_model(config: Config, data: Data) -> keras.Model:
    """An untrained model for the images and classes of `data`."""
    build = MODELS[family_of(config.model.name)]
    return build(config.model, data.channels, len(data.classes), data.image_size)


def neutral_shapes(model: keras.Model) -> Shapes:
    return {name: tensor.shape for name, tensor in neutral_state(model).items()}


def neutral_weights(model: keras.Model) -> Weights:
    """Copies of the model's weights as NumPy arrays."""
    return {name: tensor.read() for name, tensor in neutral_state(model).items()}


def load_weights(model: keras.Model, weights: Weights) -> None:
    """Copy neutral weights into the model, whose names and shapes must be the same."""
    state = neutral_state(model)
    assert state.keys() == weights.keys()
    for name, tensor in state.items():
        tensor.assign(weights[name])


def parameter_count(model: keras.Model) -> int:
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
