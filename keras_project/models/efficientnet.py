"""EfficientNet, after Tan and Le (arXiv:1905.11946), with the names of timm's tensors.

It is written out because those of Keras and KerasHub cannot be made equal to timm's in training: their BatchNorm keeps
the biased variance, partly with another momentum. As in the models that timm trained itself, convolutions pad alike on
all sides, not as TensorFlow does, and BatchNorm has momentum 0.1 and eps 1e-5.
"""

from collections.abc import Iterator

import keras
from keras import layers

from keras_project.models.layers import BatchNorm, StochasticDepth, convolution, depthwise_convolution, with_head
from shared.config import ModelConfig
from shared.models import Stage, scale_efficientnet, spread_depth_rates


def normalise_and_activate(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    x = BatchNorm(name=name)(x)
    return layers.Activation("silu", name=f"{name}.act")(x)


def squeeze_excite(x: keras.KerasTensor, reduced: int, name: str) -> keras.KerasTensor:
    """Scales each channel by a factor that depends on all channels' means (arXiv:1709.01507): (n, H, W, C) to the same.
    """
    scale = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}.mean")(x)  # (n, 1, 1, C)
    scale = layers.Conv2D(reduced, 1, activation="silu", name=f"{name}.conv_reduce")(scale)
    scale = layers.Conv2D(x.shape[-1], 1, activation="sigmoid", name=f"{name}.conv_expand")(scale)
    return layers.Multiply(name=name)([x, scale])


def add_shortcut(x: keras.KerasTensor, shortcut: keras.KerasTensor, drop: float, name: str) -> keras.KerasTensor:
    x = StochasticDepth(drop, name=f"{name}.drop")(x)
    return layers.Add(name=f"{name}.add")([x, shortcut])


def depthwise_separable(x: keras.KerasTensor, stage: Stage, stride: int, drop: float, name: str) -> keras.KerasTensor:
    """Depthwise convolution, squeeze-and-excitation, 1x1: (n, H, W, in) to (n, H / stride, W / stride, out).

    The block of the first stage, which does not widen its input (MBConv1 in the paper).
    """
    shortcut, channels_in = x, x.shape[-1]
    x = depthwise_convolution(x, stage.kernel, stride, f"{name}.conv_dw")
    x = normalise_and_activate(x, f"{name}.bn1")
    x = squeeze_excite(x, channels_in // 4, f"{name}.se")
    x = convolution(x, stage.channels, 1, 1, f"{name}.conv_pw")
    x = BatchNorm(name=f"{name}.bn2")(x)
    return add_shortcut(x, shortcut, drop, name) if stride == 1 and channels_in == stage.channels else x


def inverted_residual(x: keras.KerasTensor, stage: Stage, stride: int, drop: float, name: str) -> keras.KerasTensor:
    """1x1 that widens, depthwise convolution, squeeze-and-excitation, 1x1 that narrows: (n, H, W, in) to
    (n, H / stride, W / stride, out).

    The block of all other stages (MBConv6 in the paper).
    """
    shortcut, channels_in = x, x.shape[-1]
    x = convolution(x, channels_in * stage.expansion, 1, 1, f"{name}.conv_pw")
    x = normalise_and_activate(x, f"{name}.bn1")
    x = depthwise_convolution(x, stage.kernel, stride, f"{name}.conv_dw")
    x = normalise_and_activate(x, f"{name}.bn2")
    x = squeeze_excite(x, channels_in // 4, f"{name}.se")
    x = convolution(x, stage.channels, 1, 1, f"{name}.conv_pwl")
    x = BatchNorm(name=f"{name}.bn3")(x)
    return add_shortcut(x, shortcut, drop, name) if stride == 1 and channels_in == stage.channels else x


def build_stage(x: keras.KerasTensor, stage: Stage, rates: Iterator[float], name: str) -> keras.KerasTensor:
    """The blocks of a stage, of which the first has its stride."""
    block = inverted_residual if stage.expansion > 1 else depthwise_separable
    for number in range(stage.blocks):
        x = block(x, stage, stage.stride if number == 0 else 1, next(rates), f"{name}.{number}")
    return x


def build_efficientnet(settings: ModelConfig, channels: int, classes: int, image_size: int) -> keras.Model:
    """Images (n, S, S, C) to logits (n, K)."""
    width, stages, last = scale_efficientnet(settings.name)
    rates = iter(spread_depth_rates(settings.stochastic_depth, sum(stage.blocks for stage in stages)))
    inputs = keras.Input((image_size, image_size, channels), name="images")
    x = convolution(inputs, width, 3, 2, "conv_stem")
    x = normalise_and_activate(x, "bn1")
    for number, stage in enumerate(stages):
        x = build_stage(x, stage, rates, f"blocks.{number}")
    x = convolution(x, last, 1, 1, "conv_head")
    x = normalise_and_activate(x, "bn2")
    x = layers.GlobalAveragePooling2D(name="avgpool")(x)  # (n, s, s, w) -> (n, w)
    return with_head(inputs, x, settings, classes, "classifier")
