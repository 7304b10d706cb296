"""ResNet v1.5 for images, after He et al. (arXiv:1512.03385), with the names of torchvision's and timm's tensors.

It is written out because it is short, and because Keras has no ResNet-18, and a ResNet-50 of version 1 whose
convolutions have biases. Convolutions have no bias, and BatchNorm has momentum 0.1 and eps 1e-5. Version 1.5 means that
a bottleneck of stride 2 halves the image in its 3x3 convolution, where the paper does so in the first 1x1.
"""

from collections.abc import Callable, Iterator

import keras
from keras import layers

from keras_project.models.layers import BatchNorm, StochasticDepth, convolution, with_head
from shared.config import ModelConfig
from shared.models import RESNETS, choose_stem, spread_depth_rates


def projection(x: keras.KerasTensor, channels_out: int, stride: int, name: str) -> keras.KerasTensor:
    """The shortcut of a block: a strided 1x1 convolution where shapes differ, else nothing."""
    if stride == 1 and x.shape[-1] == channels_out:
        return x
    x = convolution(x, channels_out, 1, stride, f"{name}.downsample.0")
    return BatchNorm(name=f"{name}.downsample.1")(x)


def basic_block(x: keras.KerasTensor, width: int, stride: int, drop: float, name: str) -> keras.KerasTensor:
    """Two 3x3 convolutions beside a shortcut: (n, H, W, in) to (n, H / stride, W / stride, width)."""
    shortcut = projection(x, width, stride, name)
    x = convolution(x, width, 3, stride, f"{name}.conv1")
    x = BatchNorm(name=f"{name}.bn1")(x)
    x = layers.ReLU(name=f"{name}.relu1")(x)
    x = convolution(x, width, 3, 1, f"{name}.conv2")
    x = BatchNorm(name=f"{name}.bn2")(x)
    x = StochasticDepth(drop, name=f"{name}.drop")(x)
    x = layers.Add(name=f"{name}.add")([x, shortcut])
    return layers.ReLU(name=f"{name}.relu")(x)


def bottleneck(x: keras.KerasTensor, width: int, stride: int, drop: float, name: str) -> keras.KerasTensor:
    """1x1, 3x3 and 1x1 convolutions beside a shortcut: (n, H, W, in) to (n, H / stride, W / stride, 4 width)."""
    shortcut = projection(x, 4 * width, stride, name)
    x = convolution(x, width, 1, 1, f"{name}.conv1")
    x = BatchNorm(name=f"{name}.bn1")(x)
    x = layers.ReLU(name=f"{name}.relu1")(x)
    x = convolution(x, width, 3, stride, f"{name}.conv2")
    x = BatchNorm(name=f"{name}.bn2")(x)
    x = layers.ReLU(name=f"{name}.relu2")(x)
    x = convolution(x, 4 * width, 1, 1, f"{name}.conv3")
    x = BatchNorm(name=f"{name}.bn3")(x)
    x = StochasticDepth(drop, name=f"{name}.drop")(x)
    x = layers.Add(name=f"{name}.add")([x, shortcut])
    return layers.ReLU(name=f"{name}.relu")(x)


def build_stage(x: keras.KerasTensor, block: Callable[..., keras.KerasTensor], count: int, width: int, stride: int,
                rates: Iterator[float], name: str) -> keras.KerasTensor:
    """`count` blocks, of which the first has `stride`."""
    for number in range(count):
        x = block(x, width, stride if number == 0 else 1, next(rates), f"{name}.{number}")
    return x


def build_resnet(settings: ModelConfig, channels: int, classes: int, image_size: int) -> keras.Model:
    """Images (n, S, S, C) to logits (n, K)."""
    counts, has_bottlenecks = RESNETS[settings.name]
    block = bottleneck if has_bottlenecks else basic_block
    rates = iter(spread_depth_rates(settings.stochastic_depth, sum(counts)))
    stem = choose_stem(settings.stem, image_size)
    inputs = keras.Input((image_size, image_size, channels), name="images")
    # The small stem is as in section 4.2 of the paper, for CIFAR.
    x = convolution(inputs, 64, 3, 1, "conv1") if stem == "small" else convolution(inputs, 64, 7, 2, "conv1")
    x = BatchNorm(name="bn1")(x)
    x = layers.ReLU(name="relu")(x)
    if stem == "large":
        # PyTorch pads with minus infinity. Zeros do the same here, since nothing is below zero after a ReLU.
        x = layers.ZeroPadding2D(1, name="maxpool.padding")(x)
        x = layers.MaxPooling2D(3, 2, name="maxpool")(x)
    x = build_stage(x, block, counts[0], 64, 1, rates, "layer1")
    x = build_stage(x, block, counts[1], 128, 2, rates, "layer2")
    x = build_stage(x, block, counts[2], 256, 2, rates, "layer3")
    x = build_stage(x, block, counts[3], 512, 2, rates, "layer4")
    x = layers.GlobalAveragePooling2D(name="avgpool")(x)  # (n, s, s, w) -> (n, w)
    return with_head(inputs, x, settings, classes, "fc")
