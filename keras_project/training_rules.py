"""What this repository adds to any optimizer class of Keras: clipping of the global norm, layer-wise rates, which
variables decay, accumulation on several devices, loss scaling that counts as PyTorch's does.

PyTorch has a place outside of the optimizer for each of them (parameter groups, Lightning's Trainer), so that the other
sibling has no such file.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_project.executor import Tensor, executor
from keras_project.update_rules import belong_to
from shared.training.decay import is_decayed


class TrainingRules(executor.OptimizerHooks):
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

    def clip_by_norm(self, gradients: list[Tensor | None]) -> list[Tensor | None]:
        """The gradients of a step, clipped. Their norm is kept."""
        norm = executor.measure_norm(gradients)
        self.gradient_norm.assign(ops.cast(norm, self.gradient_norm.dtype))
        if not self.max_norm:
            return gradients
        factor = ops.minimum(ops.ones((), norm.dtype), self.max_norm / (norm + 1e-6))
        return [None if gradient is None else gradient * factor for gradient in gradients]

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
    def iterations(self) -> Tensor:
        steps = super().iterations
        return steps - self.first_step if self.first_step else steps

    def _get_current_learning_rate(self) -> Tensor:
        rate = super()._get_current_learning_rate()
        return rate if self.rate_factor == 1.0 else rate * self.rate_factor

    def update_step(self, gradient: Tensor, variable: keras.Variable, learning_rate: Tensor) -> None:
        with self.at_pace_of(self.is_of_head(variable), self.find_norm_factor(variable)):
            if self.rate_factor != 1.0:
                learning_rate = ops.cast(learning_rate, variable.dtype) * self.rate_factor
            super().update_step(gradient, variable, learning_rate)

    def decay_of(self, variable: keras.Variable) -> float:  # of the classes in update_rules.py
        return super().decay_of(variable) / self.find_norm_factor(variable)

    def _apply_weight_decay(self, variables: list[keras.Variable]) -> None:
        for of_head in (True, False):
            with self.at_pace_of(of_head):
                super()._apply_weight_decay([one for one in variables if self.is_of_head(one) == of_head])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "max_norm": self.max_norm, "head": self.head,
                "backbone_factor": self.backbone_factor, "backbone_start": self.backbone_start,
                "norm_bias_factor": self.norm_bias_factor, "decay_norm_and_bias": self.decay_norm_and_bias}


@cache
def with_training_rules(kind: type[keras.optimizers.Optimizer]) -> type[keras.optimizers.Optimizer]:
    """An optimizer class with `TrainingRules`, which takes their arguments beside its own."""
    combined = type(f"{kind.__name__}WithTrainingRules", (TrainingRules, kind), {"__module__": __name__})
    return keras.saving.register_keras_serializable("keras_project")(combined)


def unwrap_loss_scale(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer itself, also where Keras has wrapped it to scale the loss."""
    return getattr(optimizer, "inner_optimizer", optimizer)
