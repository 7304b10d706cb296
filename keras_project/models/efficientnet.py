"""EfficientNet, after Tan and Le (arXiv:1905.11946), with timm's names.

Written out, because those of Keras and KerasHub cannot be made equal to timm's in training: their BatchNorm keeps the
biased variance, partly with another momentum. As in timm's own weights, convolutions pad alike on all sides, not as
TensorFlow does, and BatchNorm has PyTorch's momentum 0.1 and eps 1e-5.
"""

import keras
from keras import layers

from keras_project.models.layers import BatchNorm, DepthwiseConv, StochasticDepth, convolution, with_head
from shared.config import ModelConfig
from shared.models import Stage, scale_efficientnet, spread_depth_rates


def normed(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.Activation("silu", name=f"{name}.act")(BatchNorm(name=name)(x))


def squeeze_excite(x: keras.KerasTensor, reduced: int, name: str) -> keras.KerasTensor:
    """Scales each channel by what the whole image says of it (arXiv:1709.01507): (n, H, W, C) to the same."""
    scale = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}.mean")(x)  # (n, 1, 1, C)
    scale = layers.Conv2D(reduced, 1, activation="silu", name=f"{name}.conv_reduce")(scale)
    scale = layers.Conv2D(x.shape[-1], 1, activation="sigmoid", name=f"{name}.conv_expand")(scale)
    return layers.Multiply(name=name)([x, scale])


def block(x: keras.KerasTensor, stage: Stage, stride: int, drop: float, name: str) -> keras.KerasTensor:
    """Widen by 1x1, depthwise convolution, squeeze, narrow by 1x1: (n, H, W, in) to (n, H / stride, W / stride, out).

    Without expansion there is no first 1x1, and the last is called what timm calls it there.
    """
    shortcut, channels_in = x, x.shape[-1]
    if stage.expansion > 1:
        x = normed(convolution(x, channels_in * stage.expansion, 1, 1, f"{name}.conv_pw"), f"{name}.bn1")
    second, last, third = ("bn2", "conv_pwl", "bn3") if stage.expansion > 1 else ("bn1", "conv_pw", "bn2")
    x = normed(DepthwiseConv(stage.kernel, stride, name=f"{name}.conv_dw")(x), f"{name}.{second}")
    x = squeeze_excite(x, channels_in // 4, f"{name}.se")
    x = BatchNorm(name=f"{name}.{third}")(convolution(x, stage.channels, 1, 1, f"{name}.{last}"))
    if stride == 1 and channels_in == stage.channels:
        x = layers.Add(name=f"{name}.add")([StochasticDepth(drop, name=f"{name}.drop")(x), shortcut])
    return x


def build_efficientnet(settings: ModelConfig, channels: int, classes: int, image_size: int) -> keras.Model:
    """Images (n, S, S, C) to logits (n, K)."""
    width, stages, last = scale_efficientnet(settings.name)
    inputs = keras.Input((image_size, image_size, channels), name="images")
    x = normed(convolution(inputs, width, 3, 2, "conv_stem"), "bn1")
    rates = iter(spread_depth_rates(settings.stochastic_depth, sum(stage.blocks for stage in stages)))
    for row, stage in enumerate(stages):
        for number in range(stage.blocks):
            x = block(x, stage, stage.stride if number == 0 else 1, next(rates), f"blocks.{row}.{number}")
    x = normed(convolution(x, last, 1, 1, "conv_head"), "bn2")
    x = layers.GlobalAveragePooling2D(name="avgpool")(x)  # (n, s, s, w) -> (n, w)
    return with_head(inputs, x, settings, classes, "classifier")
