"""Optimizer and learning rate. Keras' own SGD and AdamW are other algorithms than PyTorch's of the same name (SGD
folds the learning rate into the velocity, weight decay is decoupled in all); these follow PyTorch's formulas.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_project.models import find_entry
from shared.config import Config
from shared.training.decay import is_decayed
from shared.training.schedule import tabulate_rates


@keras.saving.register_keras_serializable("keras_project")
class TableSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """The shared table of learning rates, looked up by step."""

    def __init__(self, table: list[float] | np.ndarray):
        self.table = np.asarray(table, np.float64)

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        return tf.gather(tf.constant(self.table), tf.minimum(tf.cast(step, tf.int64), len(self.table) - 1))

    def get_config(self) -> dict[str, Any]:
        return {"table": self.table.tolist()}


class TorchOptimizer(keras.optimizers.Optimizer):
    """What the rules below share: which variables decay, and PyTorch's clipping of the global norm.

    Clipping multiplies all gradients by min(1, max_norm / (norm + 1e-6)), as `torch.nn.utils.clip_grad_norm_` does.
    All but the layer called `head` learn at `backbone_factor` of the rate, and from step `backbone_start` on.
    Which variables decay says `shared.training.decay.is_decayed`.
    """

    def __init__(self, learning_rate: Any, decay: float, decay_norm_and_bias: bool, max_norm: float,
                 head: str = "", backbone_factor: float = 1.0, backbone_start: int = 0, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.decay, self.decay_norm_and_bias, self.max_norm = decay, decay_norm_and_bias, max_norm
        self.head, self.backbone_factor, self.backbone_start = head, backbone_factor, backbone_start
        self.averaged: list[keras.Variable] = []

    def build(self, variables: list[keras.Variable]) -> None:
        super().build(variables)
        self.of_head = [variable.path.startswith(f"{self.head}/") for variable in variables]
        # Of the last step, before clipping; not finite where any gradient is not.
        self.gradient_norm = self.add_variable((), name="gradient_norm", aggregation="only_first_replica")

    def _all_reduce_sum_gradients(self, grads_and_vars: list[tuple]) -> list[tuple]:
        # Keras has no public place between the sum over replicas and the update. Its own clipping comes before the sum,
        # so that it depends on the number of devices (keras/src/optimizers/base_optimizer.py, `apply`).
        pairs = super()._all_reduce_sum_gradients(grads_and_vars)
        norm = tf.linalg.global_norm([gradient for gradient, _ in pairs])
        self.gradient_norm.assign(tf.cast(norm, self.gradient_norm.dtype))
        if self.max_norm:
            factor = tf.minimum(tf.ones([], norm.dtype), self.max_norm / (norm + 1e-6))
            pairs = [(None if gradient is None else gradient * factor, variable) for gradient, variable in pairs]
        return pairs

    def average(self, variables: list[keras.Variable], shares: np.ndarray) -> None:
        """Keep averages of `variables`, from their values now on: average += share (variable - average) at each step.

        Keras' own `use_ema` leaves BatchNorm's statistics out, counts each part of an accumulated batch as a step, and
        starts frozen weights at 0 (keras/src/optimizers/base_optimizer.py).
        """
        self.averaged = [variable for variable in variables if keras.backend.is_float_dtype(variable.dtype)]
        self.averages = self.add_optimizer_variables(self.averaged, "average")
        self.shares = tf.constant(shares)
        for variable, average in zip(self.averaged, self.averages, strict=True):
            average.assign(ops.convert_to_numpy(variable))

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

        def sums(variables: list) -> list:
            return [self._accumulated_gradients[self._get_variable_index(variable)] for variable in variables]

        def add(grads: list, variables: list) -> None:
            self._backend_increment_gradient_accumulators(grads, sums(variables))

        def update(grads: list, variables: list) -> None:
            grads = [(gradient + held) / parts for gradient, held in zip(grads, sums(variables), strict=True)]
            self._backend_update_step(grads, variables, self.learning_rate)
            self._backend_reset_gradient_accumulators()

        def in_each_replica(work: Callable) -> Callable[[], None]:
            return lambda: strategy.extended.call_for_each_replica(work, args=(grads, variables))
        ops.cond(tf.equal((self._iterations + 1) % parts, 0), in_each_replica(update), in_each_replica(add))

    def _backend_update_step(self, grads: list, trainable_variables: list, learning_rate: tf.Tensor) -> None:
        # As in Keras' own, the update of variables that are spread over devices is told to each of them.
        super()._backend_update_step(grads, trainable_variables, learning_rate)
        if self.averaged:
            share = tf.gather(self.shares, tf.minimum(tf.cast(self.iterations, tf.int64), len(self.shares) - 1))
            tf.__internal__.distribute.interim.maybe_merge_call(self.move_averages, self._distribution_strategy, share)

    def move_averages(self, strategy: tf.distribute.Strategy, share: tf.Tensor) -> None:
        def move(average: tf.Variable, variable: tf.Variable, share: tf.Tensor) -> None:
            average.assign_add(tf.cast(share, average.dtype) * (variable - average))
        for variable, average in zip(self.averaged, self.averages, strict=True):
            strategy.extended.update(average.value, move, args=(variable.value, share), group=False)

    def swap_averages(self) -> None:
        """Exchange the values of variables and averages."""
        for variable, average in zip(self.averaged, self.averages, strict=True):
            value = ops.convert_to_numpy(variable)
            variable.assign(ops.convert_to_numpy(average))
            average.assign(value)

    def rate_of(self, variable: keras.Variable, learning_rate: tf.Tensor) -> tf.Tensor:
        factor = 1.0 if self.is_head(variable) else self.backbone_factor
        return tf.cast(learning_rate, variable.dtype) * factor

    def is_head(self, variable: keras.Variable) -> bool:
        return self.of_head[self._get_variable_index(variable)]

    def decay_of(self, variable: keras.Variable) -> float:
        return self.decay if is_decayed(variable.shape, self.decay_norm_and_bias) else 0.0

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.pop("weight_decay")  # Keras' own, never used here
        return {**config, "decay": self.decay, "decay_norm_and_bias": self.decay_norm_and_bias,
                "max_norm": self.max_norm, "head": self.head, "backbone_factor": self.backbone_factor,
                "backbone_start": self.backbone_start}


@keras.saving.register_keras_serializable("keras_project")
class SGD(TorchOptimizer):
    """g += decay w; v = momentum v + g; w -= lr (g + momentum v with Nesterov, else v).

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html, without dampening.
    """

    def __init__(self, learning_rate: Any, momentum: float = 0.0, nesterov: bool = False, decay: float = 0.0,
                 decay_norm_and_bias: bool = False, max_norm: float = 0.0, **kwargs):
        super().__init__(learning_rate, decay, decay_norm_and_bias, max_norm, **kwargs)
        self.momentum, self.nesterov = momentum, nesterov

    def build(self, variables: list[keras.Variable]) -> None:
        if not self.built:
            super().build(variables)
            self.velocities = self.add_optimizer_variables(variables, "velocity")

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        rate = self.rate_of(variable, learning_rate)
        gradient = tf.cast(gradient, variable.dtype)
        if decay := self.decay_of(variable):
            gradient = gradient + decay * variable
        if self.momentum:
            velocity = self.velocities[self._get_variable_index(variable)]
            self.assign(velocity, self.momentum * velocity + gradient)
            gradient = gradient + self.momentum * velocity if self.nesterov else velocity
        self.assign_sub(variable, rate * gradient)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov}


@keras.saving.register_keras_serializable("keras_project")
class Adam(TorchOptimizer):
    """m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; w -= lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps).

    Decoupled, w -= lr decay w comes first (AdamW); otherwise g += decay w. Keras adds eps before it corrects the bias.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.Adam.html and ...AdamW.html.
    """

    def __init__(self, learning_rate: Any, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8,
                 decoupled: bool = False, decay: float = 0.0, decay_norm_and_bias: bool = False,
                 max_norm: float = 0.0, **kwargs):
        super().__init__(learning_rate, decay, decay_norm_and_bias, max_norm, **kwargs)
        self.beta1, self.beta2, self.eps, self.decoupled = beta1, beta2, eps, decoupled

    def build(self, variables: list[keras.Variable]) -> None:
        if not self.built:
            super().build(variables)
            self.means = self.add_optimizer_variables(variables, "mean")
            self.squares = self.add_optimizer_variables(variables, "square")

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        rate = self.rate_of(variable, learning_rate)
        gradient = tf.cast(gradient, variable.dtype)
        index = self._get_variable_index(variable)
        mean, square = self.means[index], self.squares[index]
        if decay := self.decay_of(variable):
            if self.decoupled:
                self.assign(variable, variable * (1 - rate * decay))
            else:
                gradient = gradient + decay * variable
        self.assign(mean, self.beta1 * mean + (1 - self.beta1) * gradient)
        self.assign(square, self.beta2 * square + (1 - self.beta2) * gradient * gradient)
        # PyTorch computes the corrections in float64 on the host, whatever the weights are.
        # Its count is of a parameter's own steps: those of a backbone begin when it is no longer frozen.
        start = 0 if self.is_head(variable) else self.backbone_start
        t = tf.cast(self.iterations + 1 - start, tf.float64)
        correction1 = tf.cast(1 - tf.pow(tf.constant(self.beta1, tf.float64), t), variable.dtype)
        correction2 = tf.cast(tf.sqrt(1 - tf.pow(tf.constant(self.beta2, tf.float64), t)), variable.dtype)
        denominator = ops.sqrt(square) / correction2 + self.eps
        self.assign_sub(variable, rate / correction1 * (mean / denominator))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "beta1": self.beta1, "beta2": self.beta2, "eps": self.eps,
                "decoupled": self.decoupled}


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


def update_rule(optimizer: keras.optimizers.Optimizer) -> TorchOptimizer:
    """One of the optimizers above, also where Keras has wrapped it to scale the loss."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def build_optimizer(config: Config, steps: int) -> keras.optimizers.Optimizer:
    """The optimizer with the shared learning rate of each step."""
    settings = config.optimizer
    # The name leads the paths of its variables in a checkpoint; Keras' own default counts the optimizers made so far.
    parts = config.train.accumulate
    # Keras asks for the learning rate of each part of a batch, and updates at the last.
    common = {"name": "optimizer", "learning_rate": TableSchedule(np.repeat(tabulate_rates(config, steps), parts)),
              "gradient_accumulation_steps": parts if parts > 1 else None,
              "decay": settings.weight_decay, "decay_norm_and_bias": settings.decay_norm_and_bias,
              "max_norm": config.train.grad_clip, "head": find_entry(config.model.name).head,
              "backbone_factor": settings.backbone_lr_factor, "backbone_start": config.train.unfreeze_epoch * steps}
    if settings.name == "sgd":
        return SGD(momentum=settings.momentum, nesterov=settings.nesterov, **common)
    return Adam(beta1=settings.beta1, beta2=settings.beta2, eps=settings.eps, decoupled=settings.name == "adamw",
                **common)
