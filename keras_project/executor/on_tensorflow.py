"""TensorFlow under Keras, on one device or on several by tf.distribute."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_project.multi_worker import is_any_true
from shared.config import Config, DebugConfig
from shared.errors import UserError
from shared.machine import hardware

NAME = f"TensorFlow {tf.__version__}"
ALWAYS_COMPILES = False  # whether by XLA, also without `hardware.compile`
SYNCHRONISES = True  # whether Keras' BatchNormalization can be synchronised over devices
OneDevice = type(tf.distribute.get_strategy())  # the strategy that is none
FIRST_CALLBACKS: tuple[type[keras.callbacks.Callback], ...] = ()  # what has to run before all other callbacks

# The machine


def refuse_settings(config: Config) -> None:
    """Raise `UserError` for what cannot be done on this backend."""
    if config.debug.detect_anomaly and config.model.gradient_checkpointing:
        raise UserError("debug.detect_anomaly=true cannot look into model.gradient_checkpointing=true in Keras, since "
                        "TensorFlow's recompute_grad makes NaN of its own and drops it; set one of them to false")


def set_threads(number: int) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(number)


def list_gpus() -> list[Any]:
    return tf.config.list_physical_devices("GPU")


def has_tpu_support() -> bool:
    """Whether this TensorFlow was built for TPUs, as the package tensorflow-tpu is."""
    return bool(tf.sysconfig.get_build_info().get("is_tpu_build", False)) or bool(
        [device for device in tf.config.list_physical_devices() if "TPU" in device.device_type])


def use_gpus(gpus: list[Any]) -> None:
    tf.config.set_visible_devices(gpus, "GPU")


def describe_gpu(gpu: Any) -> tuple[str, bool]:
    """The name of a GPU, and whether it is fast in bfloat16."""
    details = tf.config.experimental.get_device_details(gpu)
    # Tensor cores have bfloat16 since compute capability 8.0 (Ampere).
    return details.get("device_name", "GPU"), details.get("compute_capability", (0, 0)) >= (8, 0)


def set_debugging(debug: DebugConfig) -> None:
    if debug.deterministic:
        tf.config.experimental.enable_op_determinism()
    if debug.detect_anomaly:
        tf.debugging.enable_check_numerics()
    else:  # an earlier training in this process may have enabled it
        tf.debugging.disable_check_numerics()


def count_threads() -> int:
    """How many CPU threads one operation uses. TensorFlow says 0 where it takes all that this process may use."""
    return tf.config.threading.get_intra_op_parallelism_threads() or hardware.count_cores()


def uses_tf32() -> bool:
    return tf.config.experimental.tensor_float_32_execution_enabled()


def measure_peak_memory() -> float:
    """Peak memory in GiB: what TensorFlow used on a GPU, otherwise that of this process in RAM."""
    if tf.config.get_visible_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**30
    return hardware.measure_peak_memory()


def start_profile(folder: str) -> None:
    tf.profiler.experimental.start(folder)


def stop_profile() -> None:
    tf.profiler.experimental.stop()


# Devices

def count_devices() -> int:
    return tf.distribute.get_strategy().num_replicas_in_sync


def scope_of(model: keras.Model) -> AbstractContextManager:
    """Within it, variables are made that belong to the model."""
    return model.distribute_strategy.scope()


def agree(model: keras.Model, value: bool) -> bool:
    """Whether `value` is true in any process that trains the model. All have to call this."""
    return is_any_true(model.distribute_strategy, value)


def compile_update(update: Callable[..., None]) -> Callable[..., None]:
    """A function that calls `assign_from` for many variables, and is called once a step."""
    compiled = tf.function(update)
    return lambda *numbers: compiled(*map(tf.constant, numbers))


def assign_from(model: keras.Model, variable: keras.Variable, compute: Callable, *given: Any) -> None:
    """Give the variable `compute(its value, *given)` on each device of the model."""
    given = [one.value if isinstance(one, keras.Variable) else one for one in given]
    model.distribute_strategy.extended.update(
        variable.value, lambda own, *given: own.assign(compute(own, *given)), args=tuple(given), group=False)


# Layers

def normalise_batch(layer: keras.layers.BatchNormalization, inputs: tf.Tensor, training: bool | None) -> tf.Tensor:
    """See `keras_project.models.layers.BatchNorm`. Keras' own layer is slower, since it never uses the fused kernel."""
    replicas = tf.distribute.get_replica_context()
    if training and layer.trainable and layer.synchronized and replicas and replicas.num_replicas_in_sync > 1:
        return normalise_together(layer, inputs, replicas)
    if inputs.dtype == tf.float64:  # TensorFlow has no fused kernel for it
        return normalise(layer, inputs, training)
    gamma, beta = tf.convert_to_tensor(layer.gamma), tf.convert_to_tensor(layer.beta)
    if not (training and layer.trainable):
        return tf.compat.v1.nn.fused_batch_norm(
            inputs, gamma, beta, tf.convert_to_tensor(layer.moving_mean), tf.convert_to_tensor(layer.moving_variance),
            layer.epsilon, is_training=False)[0]
    # The kernel returns the unbiased variance and normalises with the biased one, in fp32 also for half precision.
    outputs, mean, unbiased = tf.compat.v1.nn.fused_batch_norm(inputs, gamma, beta, epsilon=layer.epsilon)
    layer.update(mean, unbiased)
    return outputs


def normalise(layer: keras.layers.BatchNormalization, inputs: tf.Tensor, training: bool | None) -> tf.Tensor:
    """The formula of the kernel written out, for float64."""
    if training and layer.trainable:
        mean, variance = tf.nn.moments(inputs, axes=layer._reduction_axes)
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], inputs.dtype)
        layer.update(mean, variance * (count / (count - 1)))
    else:
        mean, variance = tf.convert_to_tensor(layer.moving_mean), tf.convert_to_tensor(layer.moving_variance)
    return tf.nn.batch_normalization(inputs, mean, variance, tf.convert_to_tensor(layer.beta),
                                     tf.convert_to_tensor(layer.gamma), layer.epsilon)


def normalise_together(layer: keras.layers.BatchNormalization, inputs: tf.Tensor,
                       replicas: tf.distribute.ReplicaContext) -> tf.Tensor:
    """The same with the statistics of the global batch, of which each replica has an equal share."""
    x = inputs if inputs.dtype == tf.float64 else tf.cast(inputs, tf.float32)
    count = tf.cast(tf.size(x) // x.shape[-1] * replicas.num_replicas_in_sync, x.dtype)

    def total(values: tf.Tensor) -> tf.Tensor:
        return replicas.all_reduce(tf.distribute.ReduceOp.SUM, tf.reduce_sum(values, layer._reduction_axes))
    mean = total(x) / count
    x = x - mean
    variance = total(tf.square(x)) / count
    layer.update(mean, variance * (count / (count - 1)))
    scale = tf.convert_to_tensor(layer.gamma) * tf.math.rsqrt(variance + layer.epsilon)
    return tf.cast(x * scale + tf.convert_to_tensor(layer.beta), inputs.dtype)


def draw_uniform(shape: tuple, generator: keras.random.SeedGenerator) -> tf.Tensor:
    """Numbers in [0, 1), float32, others on each device."""
    return tf.random.stateless_uniform(shape, next_seed(generator))


def drop_out(inputs: tf.Tensor, rate: float, generator: keras.random.SeedGenerator) -> tf.Tensor:
    """Dropout with other draws on each device."""
    return tf.nn.experimental.stateless_dropout(inputs, rate, next_seed(generator))


def next_seed(generator: keras.random.SeedGenerator) -> tf.Tensor:
    """The generator's next seed, (2,) int32. It differs between devices, although the generator's state does not."""
    replicas = tf.distribute.get_replica_context()
    device = replicas.replica_id_in_sync_group if replicas else 0
    return tf.cast(generator.next(), tf.int32) + tf.stack([device, 0])


attend = partial(ops.dot_product_attention, scale=1.0)  # queries, keys and values (n, T, heads, D / heads)
recompute = tf.recompute_grad

# Gradients


def differentiate(compute: Callable, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
    """`compute(x)`, and the gradient of its sum for `x`; None where it has none."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        values = compute(x)
    return values, tape.gradient(values, x)


def differentiate_loss(model: keras.Model, images: Any, target: Any) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
    """For a batch, in training mode: logits, loss, and its gradients for the model's trainable variables."""
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        loss = model.compute_loss(images, target, logits)
    return logits, loss, tape.gradient(loss, [variable.value for variable in model.trainable_variables])


measure_norm = tf.linalg.global_norm  # of all gradients as one vector


class OptimizerHooks:
    """A mixin before an optimizer class, which calls `clip_by_norm` once before each update."""

    def _all_reduce_sum_gradients(self, grads_and_vars: list[tuple]) -> list[tuple]:
        # Keras has no public place between the sum over replicas and the update. Its own clipping comes before the sum,
        # so that it depends on the number of devices (keras/src/optimizers/base_optimizer.py, `apply`).
        pairs = super()._all_reduce_sum_gradients(grads_and_vars)
        clipped = self.clip_by_norm([gradient for gradient, _ in pairs])
        return [(gradient, variable) for gradient, (_, variable) in zip(clipped, pairs, strict=True)]

    def _backend_apply_gradients(self, grads: list, trainable_variables: list) -> None:
        replicas = tf.distribute.get_replica_context()
        if not self.gradient_accumulation_steps or replicas is None or replicas.num_replicas_in_sync == 1:
            super()._backend_apply_gradients(grads, trainable_variables)
        else:
            replicas.merge_call(self.accumulate, args=(grads, trainable_variables))

    def accumulate(self, strategy: tf.distribute.Strategy, grads: list, variables: list) -> None:
        """Add a part's gradients to the sum or, at the last part, update.

        Keras decides which within each replica, from where TensorFlow lets no replica meet another; so this is decided
        outside of them, as Keras' own LossScaleOptimizer does.
        """
        parts = self.gradient_accumulation_steps

        def find_sums(variables: list) -> list:
            return [self._accumulated_gradients[self._get_variable_index(variable)] for variable in variables]

        def add(grads: list, variables: list) -> None:
            self._backend_increment_gradient_accumulators(grads, find_sums(variables))

        def update(grads: list, variables: list) -> None:
            grads = [(gradient + earlier) / parts
                     for gradient, earlier in zip(grads, find_sums(variables), strict=True)]
            grads = self._clip_gradients(grads)
            self._apply_weight_decay(variables)
            self._backend_update_step(grads, variables, self.learning_rate)
            self._backend_reset_gradient_accumulators()

        def in_each_replica(work: Callable) -> Callable[[], None]:
            return lambda: strategy.extended.call_for_each_replica(work, args=(grads, variables))
        ops.cond(tf.equal((self._iterations + 1) % parts, 0), in_each_replica(update), in_each_replica(add))


class LossScale(keras.optimizers.LossScaleOptimizer):
    """Keras' own, but a step that is left out because a gradient is not finite counts as a step, as in PyTorch, and is
    left out where it is not finite on any device, of which Keras looks at the first."""

    def check_finite(self, grads: list[tf.Tensor]) -> tf.Tensor:
        finite, replicas = super().check_finite(grads), tf.distribute.get_replica_context()
        if replicas is None or replicas.num_replicas_in_sync == 1:
            return finite
        number = replicas.all_reduce(tf.distribute.ReduceOp.SUM, tf.cast(finite, tf.int32))
        return tf.equal(number, replicas.num_replicas_in_sync)

    def _stateful_handle_non_finite_grads(self) -> None:
        super()._stateful_handle_non_finite_grads()
        self.inner_optimizer._iterations.assign_add(1)
