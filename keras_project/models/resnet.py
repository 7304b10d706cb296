"""ResNet v1.5 for images, after He et al. (arXiv:1512.03385), with torchvision's and timm's names.

Written out, because it is short, Keras has no ResNet-18, and its ResNet-50 is version 1 with biases. Convolutions have
no bias; BatchNorm has momentum 0.1 and eps 1e-5; a block of stride 2 halves in its first 3x3.
"""

import keras
from keras import layers

from keras_project.models.layers import BatchNorm, StochasticDepth, convolution, with_head
from shared.config import ModelConfig
from shared.models import RESNETS, choose_stem, spread_depth_rates


def block(x: keras.KerasTensor, channels_out: int, stride: int, bottleneck: bool, drop: float,
          name: str) -> keras.KerasTensor:
    """A branch of convolutions and a shortcut: (n, H, W, in) to (n, H / stride, W / stride, out).

    The branch is two 3x3 or, in a bottleneck, 1x1, 3x3 and 1x1 with a quarter of the channels inside.
    """
    shortcut = x
    if stride != 1 or x.shape[-1] != channels_out:
        shortcut = convolution(x, channels_out, 1, stride, f"{name}.downsample.0")
        shortcut = BatchNorm(name=f"{name}.downsample.1")(shortcut)
    inside = channels_out // 4 if bottleneck else channels_out
    shapes = [(inside, 1, 1), (inside, 3, stride), (channels_out, 1, 1)] if bottleneck \
        else [(inside, 3, stride), (inside, 3, 1)]
    for number, (width, size, step) in enumerate(shapes, 1):
        x = BatchNorm(name=f"{name}.bn{number}")(convolution(x, width, size, step, f"{name}.conv{number}"))
        if number < len(shapes):
            x = layers.ReLU(name=f"{name}.relu{number}")(x)
    x = StochasticDepth(drop, name=f"{name}.drop")(x)
    return layers.ReLU(name=f"{name}.relu")(layers.Add(name=f"{name}.add")([x, shortcut]))


def build_resnet(settings: ModelConfig, channels: int, classes: int, image_size: int) -> keras.Model:
    """Images (n, S, S, C) to logits (n, K)."""
    blocks, bottleneck = RESNETS[settings.name]
    stem = choose_stem(settings.stem, image_size)
    inputs = keras.Input((image_size, image_size, channels), name="images")
    size, stride = (3, 1) if stem == "small" else (7, 2)  # small as for CIFAR in section 4.2 of the paper
    x = convolution(inputs, 64, size, stride, "conv1")
    x = layers.ReLU(name="relu")(BatchNorm(name="bn1")(x))
    if stem == "large":
        # Zeros are as good as minus infinity here, since nothing after a ReLU is below zero.
        x = layers.MaxPooling2D(3, 2, name="maxpool")(layers.ZeroPadding2D(1, name="maxpool.padding")(x))
    rates = iter(spread_depth_rates(settings.stochastic_depth, sum(blocks)))
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage * (4 if bottleneck else 1)
        for number in range(count):
            stride = 2 if stage > 0 and number == 0 else 1
            x = block(x, width, stride, bottleneck, next(rates), f"layer{stage + 1}.{number}")
    x = layers.GlobalAveragePooling2D(name="avgpool")(x)  # (n, s, s, w) -> (n, w)
    return with_head(inputs, x, settings, classes, "fc")
