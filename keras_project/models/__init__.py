"""Models by name, and how their weights get to and from the neutral names."""

from collections.abc import Callable
from importlib import import_module

import keras
from keras.src.utils.naming import reset_uids

from keras_project.models.neutral import drop_model_name, load_weights, neutral_shapes, neutral_state, neutral_weights
from shared.config import Config
from shared.data.loading import Data
from shared.errors import UserError
from shared.models import MODELS, ModelEntry, require_entry_fits, split_library_name
from shared.runs.trained import Trained

__all__ = ["build_model", "find_entry", "load_weights", "neutral_shapes", "neutral_state", "neutral_weights"]


def find_entry(name: str) -> ModelEntry:
    """What has to be known about the model `model.name`.

    Raises:
        UserError: where this sibling has no function that builds it, or its library no such model.
    """
    if split_library_name(name):
        from keras_project.models.library import describe_model  # here, since few need it

        return describe_model(name)
    entry = MODELS[name]
    find_builder(name, entry)
    return entry


def find_builder(name: str, entry: ModelEntry) -> Callable[..., keras.Model]:
    """`build_<builder>` in models/<builder>.py. Raises `UserError` where there is none."""
    place, function = f"{__name__}.{entry.builder}", f"build_{entry.builder}"
    try:
        build = getattr(import_module(place), function, None)
    except ModuleNotFoundError as error:
        if error.name != place:
            raise
        build = None
    if build is None:
        raise UserError(f"model.name={name} has no function {function} in {place.replace('.', '/')}.py; write it, or "
                        "train with the other sibling")
    return build


def build_model(config: Config, data: Data | Trained) -> keras.Model:
    """An untrained model for the images and classes of `data`.

    Raises:
        UserError: where this sibling has no function that builds it, where the model is not what its entry says, or
            where a tensor of it has no name of its own in a weight file.
    """
    name = config.model.name
    entry = find_entry(name)
    reset_uids()  # so that the names of unnamed layers do not depend on how many models the process has built
    build = find_builder(name, entry)
    if entry.framework:
        keras.utils.set_random_seed(config.seed)  # from which the framework draws the initial weights
    model = build(config.model, data.channels, len(data.classes), data.image_size)
    drop_model_name(model)
    require_entry_fits(name, entry, neutral_shapes(model), len(data.classes))
    if entry.head not in [layer.name for layer in model.layers]:
        raise UserError(f"{entry.head} of model.name={name} is a layer within another; make the head a layer of the "
                        "model itself, since model.freeze=backbone goes by the layers of the model")
    return model
