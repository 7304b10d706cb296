"""How the variables of a Keras model are called and laid out in the neutral format, which is PyTorch's.

This is the only place that knows the axes of a kernel. A layer has to be called what its module is called in PyTorch;
a layer within a layer, or within a nested model, is called by all their names, "block.norm1". The tables below rename
the variables of those stock layers that PyTorch has too. Any other variable keeps its own name and layout, so that it
returns to Keras, and to PyTorch where a tensor has that name and shape.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers
from keras.src.models.functional import Functional

from shared.errors import UserError
from shared.weights.file import Shapes, Weights

# Layouts, Keras' on the left; S are the axes of the image.
SAME = "same"
KERNEL = "kernel"        # (*S, in, out) to (out, in, *S); transposed: (*S, out, in) to (in, out, *S)
DEPTHWISE = "depthwise"  # (*S, channels, multiplier) to (channels x multiplier, 1, *S)
FLAT = "flat"            # one axis that is longer than 1 to that axis alone

# For each variable of a layer its name in PyTorch and its layout.
Names = dict[str, tuple[str, str]]
DENSE: Names = {"kernel": ("weight", KERNEL), "bias": ("bias", SAME)}
DEPTHWISE_CONVOLUTION: Names = {"kernel": ("weight", DEPTHWISE), "bias": ("bias", SAME)}
# PyTorch writes one as two modules, here `depthwise` and `pointwise`.
SEPARABLE_CONVOLUTION: Names = {"depthwise_kernel": ("depthwise.weight", DEPTHWISE),
                                "pointwise_kernel": ("pointwise.weight", KERNEL), "bias": ("pointwise.bias", SAME)}
NORMALIZATION: Names = {"gamma": ("weight", SAME), "beta": ("bias", SAME), "scale": ("weight", SAME),
                        "moving_mean": ("running_mean", SAME), "moving_variance": ("running_var", SAME)}
NAMES: dict[type[layers.Layer], Names] = {
    layers.Dense: DENSE,
    layers.Conv1D: DENSE, layers.Conv2D: DENSE, layers.Conv3D: DENSE,
    layers.Conv1DTranspose: DENSE, layers.Conv2DTranspose: DENSE, layers.Conv3DTranspose: DENSE,
    layers.DepthwiseConv1D: DEPTHWISE_CONVOLUTION, layers.DepthwiseConv2D: DEPTHWISE_CONVOLUTION,
    layers.SeparableConv1D: SEPARABLE_CONVOLUTION, layers.SeparableConv2D: SEPARABLE_CONVOLUTION,
    layers.BatchNormalization: NORMALIZATION, layers.LayerNormalization: NORMALIZATION,
    layers.GroupNormalization: NORMALIZATION, layers.RMSNormalization: NORMALIZATION,
    layers.Embedding: {"embeddings": ("weight", SAME)},
    layers.PReLU: {"alpha": ("weight", FLAT)},  # PyTorch has one number per channel or one in all
}
# In PyTorch these parameters belong to the model itself, not to a module of it.
OF_THE_MODEL = ("cls_token", "pos_embed")


@dataclass(frozen=True)
class NeutralTensor:
    """A variable of a model, and the way of its values to and from the neutral layout."""

    variable: keras.Variable
    layout: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.to_neutral(np.empty(self.variable.shape, np.bool_)).shape

    def read(self) -> np.ndarray:
        """A copy of the variable's values in the neutral layout."""
        return self.to_neutral(self.variable.numpy())

    def assign(self, values: np.ndarray) -> None:
        """Give the variable these values, which are in the neutral layout."""
        self.variable.assign(self.from_neutral(values))

    def to_neutral(self, values: np.ndarray) -> np.ndarray:
        if self.layout == KERNEL:
            values = np.moveaxis(values, (-1, -2), (0, 1))
        elif self.layout == DEPTHWISE:
            values = np.moveaxis(values, (-2, -1), (0, 1))  # (channels, multiplier, *S)
            values = values.reshape(-1, 1, *values.shape[2:])
        elif self.layout == FLAT:
            values = values.reshape(-1) if values.size == max(values.shape) else values
        return np.array(values, order="C")

    def from_neutral(self, values: np.ndarray) -> np.ndarray:
        """The inverse of `to_neutral`."""
        if self.layout == KERNEL:
            return np.moveaxis(values, (0, 1), (-1, -2))
        if self.layout == DEPTHWISE:
            values = values.reshape(*self.variable.shape[-2:], *values.shape[2:])
            return np.moveaxis(values, (0, 1), (-2, -1))
        return values.reshape(self.variable.shape)


def neutral_state(model: keras.Model) -> dict[str, NeutralTensor]:
    """The variables of the model by their names in the neutral format, in the order of `model.weights`.

    Raises:
        UserError: where two variables would have the same name.
    """
    owners, found = dict(owned_variables(model)), {}
    for variable in model.weights:
        *modules, name = variable.path.split("/")
        neutral, layout = neutral_name(owners[id(variable)], name)
        name = neutral if name in OF_THE_MODEL else ".".join([*modules, neutral])
        if name in found:
            raise UserError(f"two variables of the model, {found[name].variable.path} and {variable.path}, would both "
                            f"be called {name} in a weight file; give their layers different names")
        found[name] = NeutralTensor(variable, layout)
    return found


def drop_model_name(model: keras.Model) -> None:
    """Let the paths of a Sequential's and of a subclassed model's variables begin without the name of the model itself.

    Then they are like those of a functional model, in which a variable of the head is "head/kernel".
    """
    if not isinstance(model, Functional):
        for variable in model.weights:
            variable._path = variable.path.removeprefix(f"{model.name}/")  # Keras has no public way to rename one
            assert variable.path == variable._path


def owned_variables(model: keras.Model) -> Iterator[tuple[int, layers.Layer]]:
    """The identity of each variable of the model, and the layer that made it."""
    for layer in model._flatten_layers():  # Keras has no public way to layers within layers
        for variable in layer._trainable_variables + layer._non_trainable_variables:
            yield id(variable), layer


def neutral_name(layer: layers.Layer, variable: str) -> tuple[str, str]:
    """The name within its module, and the layout, of a layer's variable. A subclass is like its class."""
    for kind in type(layer).__mro__:
        if kind in NAMES:
            return NAMES[kind].get(variable, (variable, SAME))
    return variable, SAME


def neutral_shapes(model: keras.Model) -> Shapes:
    return {name: tensor.shape for name, tensor in neutral_state(model).items()}


def neutral_weights(model: keras.Model) -> Weights:
    """Copies of the model's weights as NumPy arrays."""
    return {name: tensor.read() for name, tensor in neutral_state(model).items()}


def untrained_names(model: keras.Model) -> set[str]:
    """The names of variables that are not trained."""
    return {name for name, tensor in neutral_state(model).items() if not tensor.variable.trainable}


def load_weights(model: keras.Model, weights: Weights) -> None:
    """Copy neutral weights into the model, whose names and shapes must be the same."""
    state = neutral_state(model)
    assert state.keys() == weights.keys()
    for name, tensor in state.items():
        tensor.assign(weights[name])
    finalize_layers(model)


def finalize_layers(model: keras.Model) -> None:
    """Let layers take over their variables' new values."""
    for layer in model._flatten_layers():
        if isinstance(layer, layers.Normalization):
            layer.finalize_state()  # it computes with copies of its variables
