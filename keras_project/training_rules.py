"""What this repository adds to any optimizer class of Keras: clipping of the global norm, layer-wise rates, which
variables decay, accumulation on several devices, loss scaling that counts as PyTorch's does.

PyTorch has a place outside of the optimizer for each of them (parameter groups, Lightning's Trainer), so that the other
sibling has no such file.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_project.update_rules import belong_to
from shared.training.decay import is_decayed


class TrainingRules:
    """A mixin that stands before an optimizer class; see `with_training_rules`.

    Args:
        max_norm: the largest global norm of the gradient, summed over replicas and parts; 0 for any. Clipping
            multiplies all gradients by min(1, max_norm / (norm + 1e-6)), as `torch.nn.utils.clip_grad_norm_` does.
        head: the layer that learns at the full rate.
        backbone_factor: the share of the rate at which all other layers learn and, where decay is decoupled, decay.
        backbone_start: the step at which these begin to learn, from which a rule counts their steps, as PyTorch counts
            each parameter's own.
        norm_bias_factor: the share of their layer's rate at which the biases of normalisation layers learn. Their
            decay is divided by it, so that a step decays them as without it.
        decay_norm_and_bias: whether variables decay that are no kernels; see `shared.training.decay`.
    """

    def __init__(self, *arguments: Any, max_norm: float = 0.0, head: str = "", backbone_factor: float = 1.0,
                 backbone_start: int = 0, norm_bias_factor: float = 1.0, decay_norm_and_bias: bool = False,
                 **options: Any):
        super().__init__(*arguments, **options)
        if self.weight_decay is not None:  # TensorFlow makes float32 of a Python number, also where weights are float64
            self.weight_decay = np.float64(self.weight_decay)
        self.max_norm, self.head, self.decay_norm_and_bias = max_norm, head, decay_norm_and_bias
        self.backbone_factor, self.backbone_start = backbone_factor, backbone_start
        self.norm_bias_factor = norm_bias_factor
        self.rate_factor, self.first_step = 1.0, 0  # of the variable that is updated just now

    def build(self, variables: list[keras.Variable]) -> None:
        if self.built:
            return
        self.of_head = belong_to([self.head], variables)
        self.norm_factors = [self.norm_bias_factor if variable.name == "beta" else 1.0 for variable in variables]
        self.exclude_from_weight_decay([variable for variable in variables if not is_decayed(
            variable.name, variable.shape, self.decay_norm_and_bias)])
        super().build(variables)
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

    # Rates and steps of the backbone, rates of the biases of normalisation layers

    def is_of_head(self, variable: keras.Variable) -> bool:
        return self.of_head[self._get_variable_index(variable)]

    def find_norm_factor(self, variable: keras.Variable) -> float:
        return self.norm_factors[self._get_variable_index(variable)]

    @contextmanager
    def at_pace_of(self, of_head: bool, norm_factor: float = 1.0) -> Iterator[None]:
        """Within, `iterations` and `learning_rate` are those of the head or of the backbone."""
        self.rate_factor = norm_factor
        if not of_head:
            self.rate_factor, self.first_step = norm_factor * self.backbone_factor, self.backbone_start
        yield
        self.rate_factor, self.first_step = 1.0, 0

    @property
    def iterations(self) -> tf.Tensor:
        steps = super().iterations
        return steps - self.first_step if self.first_step else steps

    def _get_current_learning_rate(self) -> tf.Tensor:
        rate = super()._get_current_learning_rate()
        return rate if self.rate_factor == 1.0 else rate * self.rate_factor

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        with self.at_pace_of(self.is_of_head(variable), self.find_norm_factor(variable)):
            if self.rate_factor != 1.0:
                learning_rate = tf.cast(learning_rate, variable.dtype) * self.rate_factor
            super().update_step(gradient, variable, learning_rate)

    def decay_of(self, variable: keras.Variable) -> float:  # of the classes in update_rules.py
        return super().decay_of(variable) / self.find_norm_factor(variable)

    def _apply_weight_decay(self, variables: list[keras.Variable]) -> None:
        for of_head in (True, False):
            with self.at_pace_of(of_head):
                super()._apply_weight_decay([one for one in variables if self.is_of_head(one) == of_head])

    # Accumulation

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

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "max_norm": self.max_norm, "head": self.head,
                "backbone_factor": self.backbone_factor, "backbone_start": self.backbone_start,
                "norm_bias_factor": self.norm_bias_factor, "decay_norm_and_bias": self.decay_norm_and_bias}


@cache
def with_training_rules(kind: type[keras.optimizers.Optimizer]) -> type[keras.optimizers.Optimizer]:
    """An optimizer class with `TrainingRules`, which takes their arguments beside its own."""
    combined = type(f"{kind.__name__}WithTrainingRules", (TrainingRules, kind), {"__module__": __name__})
    return keras.saving.register_keras_serializable("keras_project")(combined)


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


def unwrap_loss_scale(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer itself, also where Keras has wrapped it to scale the loss."""
    return getattr(optimizer, "inner_optimizer", optimizer)
