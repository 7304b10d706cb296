"""Any model of keras.applications, `model.name=keras:NAME`: Keras builds it, draws its weights, reads its checkpoints.

Its variables are called by their layers' own names in a weight file. https://keras.io/api/applications/
"""

import contextlib
import difflib
import sys
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import keras
import numpy as np
from keras import applications, layers, ops
from keras.src.utils.naming import reset_uids

from keras_project.models.layers import with_head
from keras_project.models.neutral import neutral_weights
from shared.config import Config, ModelConfig
from shared.errors import UserError, is_out_of_memory, summarise_error
from shared.machine.files import find_weight_file
from shared.models import LIBRARY_SETTINGS, Library, ModelEntry
from shared.weights.file import Weights, read_weights

HEAD = "predictions"  # as the library calls its own


@lru_cache
def describe_model(name: str) -> ModelEntry:
    """The entry of `model.name`. Raises `UserError` where keras.applications has no such model."""
    find_function(name)
    return ModelEntry("library", HEAD, "", LIBRARY_SETTINGS["keras"], framework="keras",
                      library=Library(find_preprocessing, read_checkpoint))


def find_function(name: str) -> Callable[..., keras.Model]:
    """The function of keras.applications that builds `model.name`. Raises `UserError` where there is none."""
    own = name.removeprefix("keras:")
    known = [word for word in dir(applications) if word[0].isupper()]
    if own not in known:
        nearest = difflib.get_close_matches(own, known, n=3)
        raise UserError(f"model.name={name}: Keras {keras.__version__} has no keras.applications.{own}; "
                        + (f"did you mean {' or '.join(nearest)}?" if nearest else f"choose one of {', '.join(known)}"))
    return getattr(applications, own)


def find_module(name: str) -> ModuleType:
    """The module of the library in which the model stands, with its `preprocess_input`."""
    return sys.modules[find_function(name).__module__]


def build_library(settings: ModelConfig, channels: int, classes: int, image_size: int) -> keras.Model:
    """The library's model from images (n, S, S, C), normalised as `find_preprocessing` says, to logits (n, K).

    Raises:
        UserError: where Keras cannot build it for such images, or without what `settings` ask for.
    """
    inputs = keras.Input((image_size, image_size, channels), name="images")
    reverses = measure_preprocessing(settings.name)[2]
    x = Colours(reverses, name="colours")(inputs) if reverses or channels == 1 else inputs
    try:
        features = build_backbone(settings.name, input_tensor=x, input_shape=(image_size, image_size, 3), pooling="avg")
    except Exception as error:  # Keras' models raise whatever the first layer that does not fit leads to
        if is_out_of_memory(error):
            raise
        raise UserError(f"model.name={settings.name} does not take images of {image_size} pixels "
                        f"({summarise_error(error)}); set another dataset.image_size") from None
    set_stochastic_depth(features, settings)
    return with_head(inputs, features.output, settings, classes, HEAD)


def build_backbone(name: str, weights: str | None = None, **options: Any) -> keras.Model:
    """The library's model without its head, whose layers are called the same however many models were built before."""
    reset_uids()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a published size is 224, of a model that takes any
        return find_function(name)(include_top=False, weights=weights, **options)


def set_stochastic_depth(model: keras.Model, settings: ModelConfig) -> None:
    """Give the last block `model.stochastic_depth`, and the others in proportion. EfficientNets have 0.2 by themselves.
    """
    branches = [layer for layer in model.layers if isinstance(layer, layers.Dropout) and layer.noise_shape]
    if settings.stochastic_depth and not branches:
        raise UserError(f"model.stochastic_depth={settings.stochastic_depth:g} is not for model.name={settings.name}, "
                        "which has none in Keras; leave it out")
    largest = max((layer.rate for layer in branches), default=0)
    for layer in branches:
        layer.rate *= settings.stochastic_depth / largest


@keras.saving.register_keras_serializable("keras_project")
class Colours(layers.Layer):
    """Images (n, H, W, 1 or 3) as the three colours that the library's models take, from blue to red if `reverses`.

    Grey is shown to the model as three equal colours. That is the same as summing its first kernel over the colours,
    and holds where the model normalises each colour by itself.
    """

    def __init__(self, reverses: bool, **kwargs: Any):
        super().__init__(**kwargs)
        self.reverses = reverses

    def call(self, images: Any) -> Any:
        if images.shape[-1] == 1:
            return ops.repeat(images, 3, axis=-1)
        return ops.flip(images, axis=-1) if self.reverses else images

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "reverses": self.reverses}


def measure_preprocessing(name: str) -> tuple[list[float], list[float], bool]:
    """What the library's `preprocess_input` does, measured on black, red, green and blue: mean and standard deviation
    of red, green and blue, as of pixels scaled to 0..1, and whether it puts blue first."""
    pixels = np.concatenate([np.zeros((1, 3)), np.eye(3)]) * 255
    black, *colours = find_module(name).preprocess_input(pixels.reshape(4, 1, 1, 3)).reshape(4, 3)
    slopes = np.array(colours) - black  # (colours in, channels out)
    reverses = bool(slopes[0, 0] == 0)
    if reverses:
        black, slopes = black[::-1], slopes[:, ::-1]
    scale = np.diag(slopes)
    assert np.array_equal(slopes, np.diag(scale)), f"preprocess_input of {name} mixes colours"
    mean, std = -black / scale, 1 / scale
    return np.round(mean + 0.0, 12).tolist(), np.round(std, 12).tolist(), reverses


def find_preprocessing(config: Config) -> dict[str, Any]:
    """The preprocessing that the model expects, also without a checkpoint: some normalise pixels of 0..255 within."""
    mean, std, _ = measure_preprocessing(config.model.name)
    return {"mean": mean, "std": std}


def read_checkpoint(config: Config) -> tuple[str, Weights]:
    """Source and weights of the checkpoint that `model.pretrained` names: the backbone and, where it is there, a head.

    A file is a weight file of this repository, or what `model.save` or `model.save_weights` wrote of a model of
    keras.applications, with or without a dense layer as its head.

    Raises:
        UserError: where it is missing, cannot be fetched, or belongs to another model.
    """
    name, wanted = config.model.name, config.model.pretrained
    if wanted.lower() == "true":
        return f"keras.applications.{name.removeprefix('keras:')}", fetch_weights(name)
    path = Path(wanted).expanduser()
    if path.is_dir() or path.suffix == ".safetensors":
        return wanted, read_weights(find_weight_file(wanted))
    if not path.is_file() or path.suffix not in (".keras", ".h5"):
        raise UserError(f"model.pretrained={wanted} is not a .keras, .h5 or .safetensors file that is there; name one, "
                        "or use true or false")
    try:
        if is_model_file(path):
            with contextlib.redirect_stdout(sys.stderr):
                return wanted, take_backbone(name, keras.models.load_model(path, compile=False))
        return wanted, read_weights_of_keras(name, path)
    except Exception as error:  # h5py's, zipfile's and Keras' own, which have no base in common
        raise UserError(f"model.pretrained={wanted} cannot be loaded into model.name={name} "
                        f"({summarise_error(error)}); use a file of that model") from None


def fetch_weights(name: str) -> Weights:
    """The weights that Keras publishes, by way of its own client and cache. Raises `UserError` where it cannot."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            model = build_backbone(name, weights="imagenet")
    except Exception as error:  # `get_file` raises Exception itself
        raise UserError(f"model.pretrained=true: the weights of model.name={name} are not in Keras' cache and cannot "
                        f"be fetched ({summarise_error(error)}); go online, or name a local copy with "
                        "model.pretrained=FILE") from None
    return fold_rescaling(neutral_weights(model), find_colour_scale(model))


def is_model_file(path: Path) -> bool:
    """Whether the file holds a whole model, not its weights alone."""
    if path.suffix == ".keras":
        return True
    with h5py.File(path) as file:
        return "model_config" in file.attrs


def read_weights_of_keras(name: str, path: Path) -> Weights:
    """What `save_weights` wrote of the model, with the library's head or without one."""
    model = build_backbone(name)
    try:
        model.load_weights(path)
        weights = neutral_weights(model)
    except ValueError as error:
        model = find_function(name)(weights=None)
        try:
            model.load_weights(path)
        except ValueError:
            raise error from None
        weights = take_backbone(name, model)
    # Published ones need what EfficientNet does where Keras loads them; those that nobody changed have 0 and 1.
    if np.any(weights.get("normalization.mean", 0)):
        return fold_rescaling(weights, 1 / np.sqrt(find_module(name).IMAGENET_STDDEV_RGB))
    return weights


def take_backbone(name: str, model: keras.Model) -> Weights:
    """The weights of a whole model by the names that they have here. The backbone's come first in it."""
    backbone = build_backbone(name)
    count = len(backbone.weights)
    for variable, given in zip(backbone.weights, model.weights[:count], strict=True):
        variable.assign(given)
    weights, head = fold_rescaling(neutral_weights(backbone), find_colour_scale(model)), model.weights[count:]
    if [len(variable.shape) for variable in head] == [2, 1]:
        weights |= {f"{HEAD}.weight": head[0].numpy().T, f"{HEAD}.bias": head[1].numpy()}
    return weights


def find_colour_scale(model: keras.Model) -> np.ndarray | float:
    """What the model multiplies each colour by after it has normalised them, (3,); 1 where it does not."""
    scales = [np.array(layer.scale) for layer in model._flatten_layers() if isinstance(layer, layers.Rescaling)]
    return next((scale for scale in scales if scale.ndim), 1.0)


def fold_rescaling(weights: Weights, scale: np.ndarray | float) -> Weights:
    """`weights` whose Normalization multiplies by `scale` too.

    With weights="imagenet" the library builds EfficientNetB0 to B7 with a layer after their Normalization that it
    leaves out otherwise. Here a model is the same whatever it starts from, so that the layer's work is done by the
    variance: s (x - m) / sqrt(v) = (x - m) / sqrt(v / s^2).
    """
    name = "normalization.variance"
    return weights | {name: (weights[name] / scale**2).astype(np.float32)} if name in weights else weights
