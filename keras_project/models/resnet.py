"""ResNet for images, after He et al. (arXiv:1512.03385), with torchvision's names.

Convolutions have no bias; BatchNorm has momentum 0.1 and eps 1e-5; a block of stride 2 halves in its first 3x3.
"""

import keras
from keras import layers

from keras_project.models.layers import BatchNorm


def convolution(x: keras.KerasTensor, channels_out: int, size: int, stride: int, name: str) -> keras.KerasTensor:
    """A convolution without bias that pads alike on all sides; Keras' "same" pads one side more where stride is 2."""
    if size > 1:
        x = layers.ZeroPadding2D(size // 2, name=f"{name}.padding")(x)
    return layers.Conv2D(channels_out, size, stride, padding="valid", use_bias=False, name=name)(x)


def basic_block(x: keras.KerasTensor, channels_out: int, stride: int, name: str) -> keras.KerasTensor:
    """Two 3x3 convolutions and a shortcut: (n, H, W, in) to (n, H / stride, W / stride, out)."""
    shortcut = x
    if stride != 1 or x.shape[-1] != channels_out:
        shortcut = convolution(x, channels_out, 1, stride, f"{name}.downsample.0")
        shortcut = BatchNorm(name=f"{name}.downsample.1")(shortcut)
    x = convolution(x, channels_out, 3, stride, f"{name}.conv1")
    x = layers.ReLU(name=f"{name}.relu1")(BatchNorm(name=f"{name}.bn1")(x))
    x = BatchNorm(name=f"{name}.bn2")(convolution(x, channels_out, 3, 1, f"{name}.conv2"))
    return layers.ReLU(name=f"{name}.relu2")(layers.Add(name=f"{name}.add")([x, shortcut]))


def resnet(blocks: tuple[int, ...], channels: int, classes: int, stem: str, image_size: int) -> keras.Model:
    """Images (n, S, S, C) to logits (n, K)."""
    inputs = keras.Input((image_size, image_size, channels), name="images")
    size, stride = (3, 1) if stem == "small" else (7, 2)  # small as for CIFAR in section 4.2 of the paper
    x = convolution(inputs, 64, size, stride, "conv1")
    x = layers.ReLU(name="relu")(BatchNorm(name="bn1")(x))
    if stem == "large":
        # Zeros are as good as minus infinity here, since nothing after a ReLU is below zero.
        x = layers.MaxPooling2D(3, 2, name="maxpool")(layers.ZeroPadding2D(1, name="maxpool.padding")(x))
    for stage, count in enumerate(blocks):
        for block in range(count):
            stride = 2 if stage > 0 and block == 0 else 1
            x = basic_block(x, 64 * 2**stage, stride, f"layer{stage + 1}.{block}")
    x = layers.GlobalAveragePooling2D(name="avgpool")(x)  # (n, s, s, 512) -> (n, 512)
    x = layers.Dense(classes, name="fc")(x)  # (n, 512) -> (n, K)
    # The loss is computed in fp32 under mixed precision, as PyTorch's autocast does.
    logits = layers.Activation("linear", name="logits",
                               dtype="float64" if x.dtype == "float64" else "float32")(x)
    return keras.Model(inputs, logits)


def resnet18(channels: int, classes: int, stem: str, image_size: int) -> keras.Model:
    return resnet((2, 2, 2, 2), channels, classes, stem, image_size)
