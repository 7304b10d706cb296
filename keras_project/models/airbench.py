"""The network of airbench, which reached 94 % on CIFAR-10 faster than any before it (arXiv:2404.00498).

Its first layer whitens patches of 2x2 pixels, see `shared.weights.whitening`, and learns its bias alone. The
convolutions after it start as the identity as far as they can. BatchNorm forgets fast and learns its bias alone, at a
rate of its own, `optimizer.norm_bias_lr_factor`. Other than in the paper, the first bias learns to the end, and the
features are the largest values over whole images of any size.
"""

import keras
import numpy as np
from keras import layers

from keras_project.models.layers import BatchNorm, convolution, gelu
from shared.config import ModelConfig
from shared.models import AIRBENCH_MOMENTUM, AIRBENCH_SCALE, AIRBENCH_WIDTHS, count_whitening_filters


@keras.saving.register_keras_serializable("keras_project")
class FixedKernelConvolution(layers.Conv2D):
    """A convolution that learns its bias alone."""

    def add_weight(self, *args, **kwargs) -> keras.Variable:
        if kwargs["name"] == "kernel":
            kwargs["trainable"] = False
        return super().add_weight(*args, **kwargs)


@keras.saving.register_keras_serializable("keras_project")
class FixedScaleBatchNorm(BatchNorm):
    """BatchNorm whose scale stays 1."""

    def __init__(self, momentum: float = AIRBENCH_MOMENTUM, scale: bool = False, **kwargs):
        super().__init__(momentum=momentum, scale=scale, **kwargs)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        super().build(input_shape)
        self.gamma = self.add_weight(shape=input_shape[-1:], name="gamma", initializer="ones", trainable=False,
                                     autocast=False)


def group(x: keras.KerasTensor, channels_out: int, name: str) -> keras.KerasTensor:
    """Two 3x3 convolutions, the first of which halves the image: (n, H, W, in) to (n, H // 2, W // 2, out).

    An image of one pixel stays as it is.
    """
    x = convolution(x, channels_out, 3, 1, f"{name}.conv1")
    if x.shape[1] > 1:
        x = layers.MaxPooling2D(2, name=f"{name}.pool")(x)
    x = FixedScaleBatchNorm(name=f"{name}.norm1")(x)
    x = layers.Activation(gelu, name=f"{name}.act1")(x)
    x = convolution(x, channels_out, 3, 1, f"{name}.conv2")
    x = FixedScaleBatchNorm(name=f"{name}.norm2")(x)
    return layers.Activation(gelu, name=f"{name}.act2")(x)


def build_airbench(settings: ModelConfig, channels: int, classes: int, image_size: int) -> keras.Model:
    """Images (n, S, S, C) to logits (n, K)."""
    inputs = keras.Input((image_size, image_size, channels), name="images")
    x = FixedKernelConvolution(count_whitening_filters(channels), 2, name="whiten")(inputs)
    x = layers.Activation(gelu, name="act")(x)
    for number, channels_out in enumerate(AIRBENCH_WIDTHS):
        x = group(x, channels_out, f"groups.{number}")
    x = layers.GlobalMaxPooling2D(name="maxpool")(x)  # (n, s, s, w) -> (n, w)
    x = layers.Dense(classes, use_bias=False, name="fc")(x)
    # Under mixed precision the loss is computed in fp32, as PyTorch's autocast does.
    # As a number of NumPy, since Keras would make float32 of a Python number, also where weights are float64.
    logits = layers.Rescaling(np.float64(AIRBENCH_SCALE), name="logits",
                              dtype="float64" if x.dtype == "float64" else "float32")(x)
    return keras.Model(inputs, logits)
