"""Layers with PyTorch's formula where that of Keras differs, and what several models are built from."""

import keras
from keras import layers, ops

from keras_project.executor import Tensor, executor
from shared.config import ModelConfig


@keras.saving.register_keras_serializable("keras_project")
class BatchNorm(keras.layers.BatchNormalization):
    """BatchNormalization whose running variance is unbiased, and whose defaults are PyTorch's.

    PyTorch normalises a batch of n values with the variance that is divided by n, but keeps the one divided by n - 1:
    running = 0.9 running + 0.1 batch (https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html). Keras
    keeps the former.
    """

    def __init__(self, momentum: float = 0.9, epsilon: float = 1e-5, synchronized: bool = executor.SYNCHRONISES,
                 **kwargs):
        super().__init__(momentum=momentum, epsilon=epsilon, synchronized=synchronized, **kwargs)

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None) -> Tensor:
        return executor.normalise_batch(self, inputs, training)

    def update(self, mean: Tensor, variance: Tensor) -> None:
        for running, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            running.assign(running * self.momentum + batch * (1 - self.momentum))


@keras.saving.register_keras_serializable("keras_project")
class StochasticDepth(layers.Layer):
    """In training, sets the branch of each image to zero with probability `rate`, and divides the others by 1 - `rate`
    so that the mean stays the same (arXiv:1603.09382). The draws are not those of the Lightning sibling."""

    def __init__(self, rate: float, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate
        # At a rate of 0 nothing is drawn, so that a checkpoint needs no generator's state.
        self.generator = keras.random.SeedGenerator() if rate else None

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if not (training and self.rate):
            return inputs
        shape = (ops.shape(inputs)[0], *[1] * (len(inputs.shape) - 1))
        kept = executor.draw_uniform(shape, self.generator) >= self.rate
        return inputs * (ops.cast(kept, inputs.dtype) / (1 - self.rate))

    def get_config(self) -> dict:
        return {**super().get_config(), "rate": self.rate}


@keras.saving.register_keras_serializable("keras_project")
class Dropout(layers.Dropout):
    """Keras' own Dropout, but with other draws on each device."""

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        if not (training and self.rate):
            return inputs
        return executor.drop_out(inputs, self.rate, self.seed_generator)


@keras.saving.register_keras_serializable("keras_project")
def gelu(x: Tensor) -> Tensor:
    """x times the integral of the normal distribution up to x, not the approximation by tanh.

    It is computed from erf, as in PyTorch. Keras' own uses erfc, which converters to ONNX do not know.
    """
    return 0.5 * x * (1 + ops.erf(x / ops.sqrt(ops.convert_to_tensor(2, x.dtype))))


def convolution(x: keras.KerasTensor, channels_out: int, size: int, stride: int, name: str) -> keras.KerasTensor:
    """A convolution of odd size without bias that pads alike on all sides: (n, H, W, in) to (n, h, w, out).

    At stride 1 padding="same" does so too, and TensorFlow then skips the zeros, which saves a quarter to five sixths of
    the time on images of one or two pixels and a tenth on larger ones. But at stride 2 "same" pads one side more than
    the other. And above 3x3, in bfloat16 on a CPU, TensorFlow 2.21.0 returns uninitialised memory as the gradient of
    the part of a kernel that meets nothing but padding.
    """
    same = size == 1 or (size <= 3 and stride == 1)
    if not same:
        x = layers.ZeroPadding2D(size // 2, name=f"{name}.padding")(x)
    padding = "same" if same else "valid"
    return layers.Conv2D(channels_out, size, stride, padding=padding, use_bias=False, name=name)(x)


def depthwise_convolution(x: keras.KerasTensor, size: int, stride: int, name: str) -> keras.KerasTensor:
    """A convolution of each channel by itself, of odd size, without bias, that pads alike on all sides:
    (n, H, W, C) to (n, h, w, C)."""
    if stride > 1:
        x = layers.ZeroPadding2D(size // 2, name=f"{name}.padding")(x)
    padding = "same" if stride == 1 else "valid"
    return layers.DepthwiseConv2D(size, stride, padding=padding, use_bias=False, name=name)(x)


def with_head(inputs: keras.KerasTensor, x: keras.KerasTensor, settings: ModelConfig, classes: int,
              name: str) -> keras.Model:
    """The model from `inputs` to the logits (n, K) of the features `x` (n, w)."""
    if settings.dropout:
        x = Dropout(settings.dropout, name="dropout")(x)
    x = layers.Dense(classes, name=name)(x)
    # Under mixed precision the loss is computed in fp32, as PyTorch's autocast does.
    logits = layers.Activation("linear", name="logits", dtype="float64" if x.dtype == "float64" else "float32")(x)
    return keras.Model(inputs, logits)
