"""Layers with PyTorch's formula where that of Keras differs, and what several models are built from."""

import keras
import tensorflow as tf
from keras import layers

from shared.config import ModelConfig


@keras.saving.register_keras_serializable("keras_project")
class BatchNorm(keras.layers.BatchNormalization):
    """BatchNormalization whose running variance is unbiased, and whose defaults are PyTorch's.

    PyTorch normalises a batch of n values with the variance that is divided by n, but keeps the one divided by n - 1:
    running = 0.9 running + 0.1 batch (https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html). Keras
    keeps the former. Keras' own layer is also slower, since it never uses TensorFlow's fused kernel.
    """

    def __init__(self, momentum: float = 0.9, epsilon: float = 1e-5, synchronized: bool = True, **kwargs):
        super().__init__(momentum=momentum, epsilon=epsilon, synchronized=synchronized, **kwargs)

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None) -> tf.Tensor:
        replicas = tf.distribute.get_replica_context()
        if training and self.trainable and self.synchronized and replicas and replicas.num_replicas_in_sync > 1:
            return self.normalise_together(inputs, replicas)
        if inputs.dtype == tf.float64:  # TensorFlow has no fused kernel for it
            return self.normalise(inputs, training)
        gamma, beta = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
        if not (training and self.trainable):
            return tf.compat.v1.nn.fused_batch_norm(
                inputs, gamma, beta, tf.convert_to_tensor(self.moving_mean), tf.convert_to_tensor(self.moving_variance),
                self.epsilon, is_training=False)[0]
        # The kernel returns the unbiased variance and normalises with the biased one, in fp32 also for half precision.
        outputs, mean, unbiased = tf.compat.v1.nn.fused_batch_norm(inputs, gamma, beta, epsilon=self.epsilon)
        self.update(mean, unbiased)
        return outputs

    def normalise(self, inputs: tf.Tensor, training: bool | None) -> tf.Tensor:
        """The formula of `call` written out, for float64."""
        if training and self.trainable:
            mean, variance = tf.nn.moments(inputs, axes=self._reduction_axes)
            count = tf.cast(tf.size(inputs) // inputs.shape[-1], inputs.dtype)
            self.update(mean, variance * (count / (count - 1)))
        else:
            mean, variance = tf.convert_to_tensor(self.moving_mean), tf.convert_to_tensor(self.moving_variance)
        return tf.nn.batch_normalization(inputs, mean, variance, tf.convert_to_tensor(self.beta),
                                         tf.convert_to_tensor(self.gamma), self.epsilon)

    def normalise_together(self, inputs: tf.Tensor, replicas: tf.distribute.ReplicaContext) -> tf.Tensor:
        """The formula of `call` with the statistics of the global batch, of which each replica has an equal share."""
        x = inputs if inputs.dtype == tf.float64 else tf.cast(inputs, tf.float32)
        count = tf.cast(tf.size(x) // x.shape[-1] * replicas.num_replicas_in_sync, x.dtype)

        def total(values: tf.Tensor) -> tf.Tensor:
            return replicas.all_reduce(tf.distribute.ReduceOp.SUM, tf.reduce_sum(values, self._reduction_axes))
        mean = total(x) / count
        x = x - mean
        variance = total(tf.square(x)) / count
        self.update(mean, variance * (count / (count - 1)))
        scale = tf.convert_to_tensor(self.gamma) * tf.math.rsqrt(variance + self.epsilon)
        return tf.cast(x * scale + tf.convert_to_tensor(self.beta), inputs.dtype)

    def update(self, mean: tf.Tensor, variance: tf.Tensor) -> None:
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

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if not (training and self.rate):
            return inputs
        shape = (tf.shape(inputs)[0], *[1] * (len(inputs.shape) - 1))
        kept = tf.random.stateless_uniform(shape, next_seed(self.generator)) >= self.rate
        return inputs * (tf.cast(kept, inputs.dtype) / (1 - self.rate))

    def get_config(self) -> dict:
        return {**super().get_config(), "rate": self.rate}


@keras.saving.register_keras_serializable("keras_project")
class Dropout(layers.Dropout):
    """Keras' own Dropout, but with other draws on each device."""

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not (training and self.rate):
            return inputs
        return tf.nn.experimental.stateless_dropout(inputs, self.rate, next_seed(self.seed_generator))


def next_seed(generator: keras.random.SeedGenerator) -> tf.Tensor:
    """The generator's next seed, (2,) int32. It differs between devices, although the generator's state does not."""
    replicas = tf.distribute.get_replica_context()
    device = replicas.replica_id_in_sync_group if replicas else 0
    return tf.cast(generator.next(), tf.int32) + tf.stack([device, 0])


@keras.saving.register_keras_serializable("keras_project")
def gelu(x: tf.Tensor) -> tf.Tensor:
    """x times the integral of the normal distribution up to x, not the approximation by tanh.

    It is computed from erf, as in PyTorch. Keras' own uses erfc, which converters to ONNX do not know.
    """
    return 0.5 * x * (1 + tf.math.erf(x / tf.sqrt(tf.constant(2, x.dtype))))


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
