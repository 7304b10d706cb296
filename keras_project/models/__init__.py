"""Models by name, and how their weights get to and from the neutral names."""

from importlib import import_module

import keras
import numpy as np

from shared.batches.data import Data
from shared.config import Config
from shared.errors import UserError
from shared.models import MODELS, ModelEntry
from shared.weights.file import Shapes, Weights

# A layer is called what its module is called in PyTorch; its variables are called what Keras calls them.
NEUTRAL = {"kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias", "moving_mean": "running_mean",
           "moving_variance": "running_var"}
# Parameters of the model itself in PyTorch, not of a module of it.
BARE = ("cls_token", "pos_embed")


def find_entry(name: str) -> ModelEntry:
    """What has to be known about the model `model.name`."""
    return MODELS[name]


def build_model(config: Config, data: Data) -> keras.Model:
    """An untrained model for the images and classes of `data`.

    Raises:
        UserError: where this sibling has no function that builds it.
    """
    builder = find_entry(config.model.name).builder
    place, name = f"{__name__}.{builder}", f"build_{builder}"
    try:
        build = getattr(import_module(place), name)
    except (ModuleNotFoundError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name != place:
            raise
        raise UserError(f"model.name={config.model.name} has no function {name} in "
                        f"{place.replace('.', '/')}.py; write it, or train with the other sibling") from None
    return build(config.model, data.channels, len(data.classes), data.image_size)


def neutral_state(model: keras.Model) -> dict[str, keras.Variable]:
    """The variables of the model by their names in the neutral format, in the order of the layers."""
    return {name if name in BARE else f"{layer}.{NEUTRAL[name]}": variable
            for variable in model.weights for layer, name in [variable.path.split("/")[-2:]]}


def to_neutral(tensor: np.ndarray) -> np.ndarray:
    """Kernels in PyTorch's layout: (H, W, in, out) to (out, in, H, W), (in, out) to (out, in)."""
    axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(tensor.ndim, range(tensor.ndim))
    return np.ascontiguousarray(tensor.transpose(axes))


def from_neutral(tensor: np.ndarray) -> np.ndarray:
    """The inverse of `to_neutral`."""
    return tensor.transpose({4: (2, 3, 1, 0), 2: (1, 0)}.get(tensor.ndim, range(tensor.ndim)))


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
