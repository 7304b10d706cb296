"""Layers whose formula in Keras differs from PyTorch's, with PyTorch's formula."""

import keras
import tensorflow as tf


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
