"""JAX under Keras, on one device. TensorFlow only reads the images, on the CPU."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import jax
import keras
import numpy as np
import tensorflow as tf
from keras import ops
from keras.src.backend.common.dtypes import BIT64_TO_BIT32_DTYPE

from shared.config import Config, DebugConfig
from shared.errors import UserError
from shared.machine import hardware

NAME = f"JAX {jax.__version__}"
ALWAYS_COMPILES = True
SYNCHRONISES = False

# By themselves, JAX makes float32 of every float64, and Keras on JAX does in `ops.mean`, `ops.sqrt` and the like. Now
# fp64 is fp64, and the corrections of Adam's bias are computed in it, as in PyTorch.
jax.config.update("jax_enable_x64", True)
BIT64_TO_BIT32_DTYPE["float64"] = "float64"  # for which Keras has no public way

# The machine


def refuse_settings(config: Config) -> None:
    """Raise `UserError` for what cannot be done on this backend."""
    settings, debug = config.hardware, config.debug
    for is_refused, word in (
        (settings.devices > 1, f"hardware.devices={settings.devices}"),
        (settings.num_nodes > 1, f"hardware.num_nodes={settings.num_nodes}"),
        (settings.strategy == "data_parallel", "hardware.strategy=data_parallel"),
        (settings.precision == "fp16", "hardware.precision=fp16"),
        (config.augment.policy != "none", f"augment.policy={config.augment.policy}"),
        (debug.detect_anomaly, "debug.detect_anomaly=true"),
        (debug.deterministic, "debug.deterministic=true"),
    ):
        if is_refused:
            raise UserError(f"{word} is not for KERAS_BACKEND=jax; leave it out, or unset KERAS_BACKEND")


def set_threads(number: int) -> None:
    os.environ["NPROC"] = str(number)  # XLA reads it at its first computation
    tf.config.threading.set_intra_op_parallelism_threads(number)


def list_gpus() -> list[Any]:
    return [device for device in jax.devices() if device.platform == "gpu"][:1]


def has_tpu_support() -> bool:
    return jax.default_backend() == "tpu"


def use_gpus(gpus: list[Any]) -> None:
    tf.config.set_visible_devices([], "GPU")
    if not gpus and jax.default_backend() == "gpu":
        jax.config.update("jax_default_device", jax.devices("cpu")[0])


def describe_gpu(gpu: Any) -> tuple[str, bool]:
    """The name of a GPU, and whether it is fast in bfloat16."""
    return gpu.device_kind, float(getattr(gpu, "compute_capability", 0)) >= 8


def set_debugging(debug: DebugConfig) -> None:
    """There is nothing to set, since both are refused."""


def count_threads() -> int:
    return int(os.environ.get("NPROC", 0)) or hardware.count_cores()


def uses_tf32() -> bool:
    return True


def measure_peak_memory() -> float:
    """Peak memory in GiB: what JAX used on a GPU, otherwise that of this process in RAM."""
    statistics = jax.devices()[0].memory_stats() or {}
    return statistics.get("peak_bytes_in_use", 0) / 2**30 or hardware.measure_peak_memory()


def start_profile(folder: str) -> None:
    jax.profiler.start_trace(folder)


def stop_profile() -> None:
    jax.profiler.stop_trace()


class StateSync(keras.callbacks.Callback):
    """Gives the model's variables the values of the last step, which `fit` keeps to itself within an epoch."""

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.model.jax_state_sync()


FIRST_CALLBACKS = (StateSync,)  # what has to run before all other callbacks


# Devices

class OneDevice:
    """What this package asks of a strategy of tf.distribute."""

    num_replicas_in_sync = 1
    scope = nullcontext


def count_devices() -> int:
    return 1


def scope_of(model: keras.Model) -> nullcontext:
    return nullcontext()


def agree(model: keras.Model, value: bool) -> bool:
    return value


def compile_update(update: Callable[..., None]) -> Callable[..., None]:
    return update


def assign_from(model: keras.Model, variable: keras.Variable, compute: Callable, *given: Any) -> None:
    given = [one.value if isinstance(one, keras.Variable) else one for one in given]
    # A copy, since `fit` gives the memory of each variable away, which another one may have too.
    variable.assign(ops.copy(compute(variable.value, *given)))


# Layers

def normalise_batch(layer: keras.layers.BatchNormalization, inputs: jax.Array, training: bool | None) -> jax.Array:
    """See `keras_project.models.layers.BatchNorm`."""
    x = inputs if inputs.dtype == np.float64 else ops.cast(inputs, "float32")
    if training and layer.trainable:
        mean, variance = ops.moments(x, layer._reduction_axes)
        count = x.size // x.shape[-1]
        layer.update(mean, variance * (count / (count - 1)))
    else:
        mean, variance = layer.moving_mean.value, layer.moving_variance.value
    scale = layer.gamma.value * ops.rsqrt(variance + layer.epsilon)
    return ops.cast((x - mean) * scale + layer.beta.value, inputs.dtype)


def draw_uniform(shape: tuple, generator: keras.random.SeedGenerator) -> jax.Array:
    return keras.random.uniform(shape, dtype="float32", seed=generator)


def drop_out(inputs: jax.Array, rate: float, generator: keras.random.SeedGenerator) -> jax.Array:
    return keras.random.dropout(inputs, rate, seed=generator)


def attend(queries: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
    """Attention among queries, keys and values (n, T, heads, D / heads)."""
    if queries.dtype != np.float64:
        return ops.dot_product_attention(queries, keys, values, scale=1.0)
    # Written out, since JAX's own function takes the softmax of float32, whatever the queries are.
    weights = ops.softmax(ops.einsum("nqhd,nkhd->nhqk", queries, keys), axis=-1)
    return ops.einsum("nhqk,nkhd->nqhd", weights, values)


recompute = jax.checkpoint

# Gradients


def differentiate(compute: Callable, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`compute(x)`, and the gradient of its sum for `x`."""
    values, pull_back = jax.vjp(compute, x)
    return values, pull_back(ops.ones_like(values))[0]


def differentiate_loss(model: keras.Model, images: Any, target: Any) -> tuple[jax.Array, jax.Array, list[jax.Array]]:
    """For a batch, in training mode: logits, loss, and its gradients for the model's trainable variables."""
    state = [[variable.value for variable in variables] for variables in (
        model.trainable_variables, model.non_trainable_variables, model.metrics_variables)]
    compute = jax.jit(jax.value_and_grad(
        lambda *state: model.compute_loss_and_updates(
            *state, ops.convert_to_tensor(images), ops.convert_to_tensor(target), None, training=True,
            optimizer_variables=[variable.value for variable in model.optimizer.variables]), has_aux=True))
    (loss, (_, logits, _, _)), gradients = compute(*state)
    return logits, loss, gradients


def measure_norm(gradients: list[jax.Array]) -> jax.Array:
    """The norm of all gradients as one vector."""
    return ops.sqrt(sum(ops.sum(ops.square(gradient)) for gradient in gradients))


class OptimizerHooks:
    """A mixin before an optimizer class, which calls `clip_by_norm` once before each update."""

    def _clip_gradients(self, grads: list) -> list:
        return self.clip_by_norm(super()._clip_gradients(grads))

    def stateless_apply(self, optimizer_variables: list, grads: list, trainable_variables: list) -> tuple[list, list]:
        """Keras' own wants a gradient for every variable that the optimizer was built with; some may be frozen now."""
        trained = [variable for variable in self._trainable_variables if variable.trainable]
        mapping = [*zip(trained, trainable_variables, strict=True),
                   *zip(self.variables, optimizer_variables, strict=True)]
        with keras.StatelessScope(state_mapping=mapping) as scope:
            self.apply(grads, trained)
        return [scope.get_current_value(variable) for variable in trained], \
            [scope.get_current_value(variable) for variable in self.variables]

