"""Models by name, and how their weights get to and from the neutral names."""

from importlib import import_module

import keras
import numpy as np

from keras_project.models.neutral import load_weights, neutral_shapes, neutral_state, neutral_weights
from shared.batches.data import Data
from shared.config import Config
from shared.errors import UserError
from shared.models import MODELS, ModelEntry, split_library_name

__all__ = ["build_model", "find_entry", "load_weights", "neutral_shapes", "neutral_state", "neutral_weights",
           "parameter_count"]


def find_entry(name: str) -> ModelEntry:
    """What has to be known about the model `model.name`. Raises `UserError` where its library has no such model."""
    if split_library_name(name):
        from keras_project.models.library import describe_model  # here, since few need it

        return describe_model(name)
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
    if find_entry(config.model.name).framework:
        keras.utils.set_random_seed(config.seed)  # from which a library's model draws its own weights
    return build(config.model, data.channels, len(data.classes), data.image_size)


def parameter_count(model: keras.Model) -> int:
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
