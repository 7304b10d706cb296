"""Layers whose formula in Keras differs from PyTorch's, with PyTorch's formula, and parts that several models have."""

import keras
import tensorflow as tf
from keras import layers

from shared.config import ModelConfig


@keras.saving.register_keras_serializable("keras_project")
class BatchNorm(keras.layers.BatchNormalization):
    """BatchNormalization whose running variance is unbiased, as in PyTorch; defaults are PyTorch's too.

    running = 0.9 running + 0.1 batch, where batch is the variance divided by n - 1, while the batch itself is
    normalised with the variance divided by n (https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html).
    Keras stores the latter. Keras' own layer is also slower, since it never takes TensorFlow's fused kernel.
    """

    def __init__(self, momentum: float = 0.9, epsilon: float = 1e-5, synchronized: bool = True, **kwargs):
        super().__init__(momentum=momentum, epsilon=epsilon, synchronized=synchronized, **kwargs)

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None) -> tf.Tensor:
        replicas = tf.distribute.get_replica_context()
        if training and self.trainable and self.synchronized and replicas and replicas.num_replicas_in_sync > 1:
            return self.normalise_together(inputs, replicas)
        if inputs.dtype == tf.float64:  # for which TensorFlow has no fused kernel
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
        """The same formula, written out."""
        if training and self.trainable:
            mean, variance = tf.nn.moments(inputs, axes=self._reduction_axes)
            count = tf.cast(tf.size(inputs) // inputs.shape[-1], inputs.dtype)
            self.update(mean, variance * (count / (count - 1)))
        else:
            mean, variance = tf.convert_to_tensor(self.moving_mean), tf.convert_to_tensor(self.moving_variance)
        return tf.nn.batch_normalization(inputs, mean, variance, tf.convert_to_tensor(self.beta),
                                         tf.convert_to_tensor(self.gamma), self.epsilon)

    def normalise_together(self, inputs: tf.Tensor, replicas: tf.distribute.ReplicaContext) -> tf.Tensor:
        """The same with the statistics of the global batch, of which each replica has an equal share."""
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
class DepthwiseConv(layers.Layer):
    """A convolution of each channel by itself, of odd size, without bias, padded alike on all sides:
    (n, H, W, C) to (n, h, w, C).

    Keras' own keeps its kernel as (size, size, C, 1); this one as (size, size, 1, C), in which, as in PyTorch, it is a
    convolution of as many groups as channels.
    """

    def __init__(self, size: int, stride: int, **kwargs):
        super().__init__(**kwargs)
        self.size, self.stride = size, stride

    def build(self, input_shape: tuple[int, ...]) -> None:
        self.kernel = self.add_weight((self.size, self.size, 1, input_shape[-1]), name="kernel")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        kernel = tf.reshape(tf.convert_to_tensor(self.kernel), (self.size, self.size, -1, 1))
        if self.stride == 1:
            return tf.nn.depthwise_conv2d(inputs, kernel, (1, 1, 1, 1), "SAME")
        side = [self.size // 2] * 2
        inputs = tf.pad(inputs, [[0, 0], side, side, [0, 0]])
        return tf.nn.depthwise_conv2d(inputs, kernel, (1, self.stride, self.stride, 1), "VALID")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        n, height, width, channels = input_shape
        return n, (height - 1) // self.stride + 1, (width - 1) // self.stride + 1, channels

    def get_config(self) -> dict:
        return {**super().get_config(), "size": self.size, "stride": self.stride}


@keras.saving.register_keras_serializable("keras_project")
class StochasticDepth(layers.Layer):
    """Drops the branch of each image with probability `rate` in training, and scales what is left, so that its mean
    stays (arXiv:1603.09382). The draws are Keras' own: not those of the other sibling."""

    def __init__(self, rate: float, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate
        # Only where it draws, so that other models have no state to keep.
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
    """Keras' own, but each device draws for itself."""

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not (training and self.rate):
            return inputs
        return tf.nn.experimental.stateless_dropout(inputs, self.rate, next_seed(self.seed_generator))


def next_seed(generator: keras.random.SeedGenerator) -> tf.Tensor:
    """The generator's next seed, (2,) int32, another on each device: its state is the same on all of them."""
    replicas = tf.distribute.get_replica_context()
    device = replicas.replica_id_in_sync_group if replicas else 0
    return tf.cast(generator.next(), tf.int32) + tf.stack([device, 0])


@keras.saving.register_keras_serializable("keras_project")
def gelu(x: tf.Tensor) -> tf.Tensor:
    """x times the normal distribution's integral up to x, not its tanh approximation.

    By erf, as PyTorch does; Keras' own takes erfc, which converters to ONNX do not know.
    """
    return 0.5 * x * (1 + tf.math.erf(x / tf.sqrt(tf.constant(2, x.dtype))))


def convolution(x: keras.KerasTensor, channels_out: int, size: int, stride: int, name: str) -> keras.KerasTensor:
    """A convolution of odd size without bias that pads alike on all sides.

    At stride 1 "same" does so, and TensorFlow skips its zeros: that saves a quarter to five sixths of the time on
    images of two pixels or one, a tenth on larger ones. At stride 2 it pads one side more. Above 3x3, in bfloat16 on a
    CPU, TensorFlow 2.21.0 gives the part of a kernel that meets nothing but such padding uninitialised memory for a
    gradient.
    """
    same = size == 1 or (size <= 3 and stride == 1)
    if not same:
        x = layers.ZeroPadding2D(size // 2, name=f"{name}.padding")(x)
    padding = "same" if same else "valid"
    return layers.Conv2D(channels_out, size, stride, padding=padding, use_bias=False, name=name)(x)


def with_head(inputs: keras.KerasTensor, x: keras.KerasTensor, settings: ModelConfig, classes: int,
              name: str) -> keras.Model:
    """The model from `inputs` to the logits (n, K) of features `x` (n, w)."""
    if settings.dropout:
        x = Dropout(settings.dropout, name="dropout")(x)
    x = layers.Dense(classes, name=name)(x)
    # The loss is computed in fp32 under mixed precision, as PyTorch's autocast does.
    logits = layers.Activation("linear", name="logits", dtype="float64" if x.dtype == "float64" else "float32")(x)
    return keras.Model(inputs, logits)
