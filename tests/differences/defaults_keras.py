"""What Keras computes as it comes, and what this repository's classes make of it, for the tests beside it;
defaults_lightning.py has the same functions.

Arrays in, arrays out: images are (n, H, W, C), kernels (H, W, in, out), weights (in, out).
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_project.early_stopping import ResumableEarlyStopping
from keras_project.models.layers import BatchNorm, convolution
from keras_project.optim import OPTIMIZERS, TableSchedule
from keras_project.training_rules import with_training_rules

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.set_visible_devices([], "GPU")
# Of learning rates, losses and metrics; layers get theirs with `dtype`.
keras.config.set_floatx("float64")

Arrays = dict[str, np.ndarray]


def strided_convolution(images: np.ndarray, kernel: np.ndarray) -> Arrays:
    channels_out, size, dtype = kernel.shape[-1], kernel.shape[0], images.dtype.name
    same = layers.Conv2D(channels_out, size, 2, padding="same", use_bias=False, dtype=dtype)
    found = {}
    keras.config.set_dtype_policy(dtype)
    inputs = keras.Input(images.shape[1:])
    for name, outputs in (("stock", same(inputs)), ("ours", convolution(inputs, channels_out, size, 2, "conv"))):
        model = keras.Model(inputs, outputs)
        model.set_weights([kernel])
        found[name] = model(images).numpy()
    keras.config.set_dtype_policy("float32")
    return found


def batch_norm(images: np.ndarray, gamma: np.ndarray, beta: np.ndarray, upstream: np.ndarray) -> dict[str, Arrays]:
    """One training step, then evaluation; `upstream` is the gradient of the outputs."""
    dtype = images.dtype.name
    return {name: batch_norm_pass(layer, images, gamma, beta, upstream) for name, layer in {
        "stock": layers.BatchNormalization(dtype=dtype),
        "stock with PyTorch's settings": layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=dtype),
        "ours": BatchNorm(dtype=dtype)}.items()}


def batch_norm_pass(layer: layers.Layer, images: np.ndarray, gamma: np.ndarray, beta: np.ndarray,
                    upstream: np.ndarray) -> Arrays:
    layer.build(images.shape)
    layer.gamma.assign(gamma)
    layer.beta.assign(beta)
    found = {}
    for mode in ("training", "evaluation"):
        inputs = tf.constant(images)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=mode == "training")
        gradients = tape.gradient(outputs, [inputs, layer.gamma.value, layer.beta.value], tf.constant(upstream))
        found |= {f"{mode} outputs": outputs.numpy(), f"{mode} gradient of inputs": gradients[0].numpy(),
                  f"{mode} gradient of gamma": gradients[1].numpy(), f"{mode} gradient of beta": gradients[2].numpy()}
    return {**found, "mean": layer.moving_mean.numpy(), "variance": layer.moving_variance.numpy()}


def batch_norm_evaluation(images: np.ndarray, variance: float) -> Arrays:
    """With a running mean of 0 and `variance` for all channels."""
    found = {}
    for name, kind in (("stock", layers.BatchNormalization), ("ours", BatchNorm)):
        layer = kind(dtype=images.dtype.name)
        layer.build(images.shape)
        layer.moving_variance.assign(np.full(images.shape[-1], variance))
        found[name] = layer(images, training=False).numpy()
    return found


def initial_deviations() -> dict[str, float]:
    """Standard deviations of the initial weights of a layer of 512 inputs and one of 3x3x64, and of their biases."""
    keras.utils.set_random_seed(0)
    dense, convolution2d = layers.Dense(512), layers.Conv2D(64, 3)
    dense.build((1, 512))
    convolution2d.build((1, 8, 8, 64))
    return {"dense": float(dense.kernel.numpy().std()), "convolution": float(convolution2d.kernel.numpy().std()),
            "bias": float(dense.bias.numpy().std())}


def optimize(rule: str, options: dict[str, Any], weights: np.ndarray, gradients: np.ndarray,
             rates: np.ndarray | None = None) -> np.ndarray:
    """The weights after a step for each of `gradients`; without `rates` at the rule's own learning rate.

    `rule` is Keras' class or, where it starts with "our ", the one of that name in our table, with the training rules.
    """
    weight = keras.Variable(weights, dtype=weights.dtype.name)
    ours = {kind.__name__: with_training_rules(kind) for kind, _ in OPTIMIZERS.values()}
    kind = ours[rule[4:]] if rule.startswith("our ") else getattr(keras.optimizers, rule)
    optimizer = kind(**options) if rates is None else kind(TableSchedule(rates), **options)
    for gradient in gradients:
        optimizer.apply([tf.constant(gradient)], [weight])
    return weight.numpy()


def resize(images: np.ndarray, size: int) -> Arrays:
    return {"stock": layers.Resizing(size, size, dtype=images.dtype.name)(images).numpy(),
            "antialiased": tf.image.resize(images, (size, size), antialias=True).numpy()}


def accuracy(logits: np.ndarray, labels: np.ndarray, batch: int) -> dict[str, float]:
    """Over batches of `batch` rows, the last one smaller."""
    metric = keras.metrics.CategoricalAccuracy()
    for start in range(0, len(labels), batch):
        metric.update_state(np.eye(logits.shape[1])[labels[start:start + batch]], logits[start:start + batch])
    return {"stock": float(metric.result())}


def cross_entropy(logits: np.ndarray, targets: np.ndarray, label_smoothing: float) -> dict[str, float]:
    options = {"label_smoothing": label_smoothing, "dtype": "float64"}
    return {"stock": float(keras.losses.CategoricalCrossentropy(**options)(targets, logits)),
            "ours": float(keras.losses.CategoricalCrossentropy(from_logits=True, **options)(targets, logits))}


def python_float(value: float) -> float:
    """A Python float as a float64 tensor."""
    return float(keras.ops.cast(value, "float64"))


def half_precision(weight: float) -> float:
    """What 1 becomes in a layer of that single weight under 16-bit mixed precision on the CPU."""
    layer = layers.Dense(1, use_bias=False, kernel_initializer=keras.initializers.Constant(weight),
                         dtype="mixed_float16")
    return float(layer(np.ones((1, 1), np.float32))[0, 0])


def epochs_until_stop(losses: list[float], options: dict[str, Any]) -> dict[str, int]:
    """After how many epochs early stopping ends a training with these validation losses."""
    found = {}
    for name, kind in (("stock", keras.callbacks.EarlyStopping), ("ours", ResumableEarlyStopping)):
        # Only the losses count, so that nothing is trained: the callback is handed what `fit` would hand it.
        model, stopping = keras.Sequential([keras.Input((1,)), layers.Dense(1)]), kind("val_loss", **options)
        model.compile("sgd", "mse")
        stopping.set_model(model)
        stopping.on_train_begin()
        model.stop_training = False
        for epoch, loss in enumerate(losses):
            stopping.on_epoch_end(epoch, {"val_loss": loss})
            found[name] = epoch + 1
            if model.stop_training:
                break
    return found
