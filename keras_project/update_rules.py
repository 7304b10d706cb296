"""Update rules that Keras does not have with PyTorch's formulas: SGD, Adam, AdamW and Muon.

Keras' SGD folds the learning rate into the velocity, all of its classes decouple the weight decay, its Adam adds
epsilon before it corrects the bias, and its Muon leaves convolutions to Adam. Each class here is an ordinary
`keras.optimizers.Optimizer`, to which `keras_project.training_rules` adds clipping and the like.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_project.executor import Tensor
from shared.training.decay import is_decayed

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of https://kellerjordan.github.io/posts/muon/
NEWTON_SCHULZ_STEPS = 5
ADAMW_SIZE = 0.2  # root mean square of a usual update of AdamW, arXiv:2502.16982, section 2.2


class TorchOptimizer(keras.optimizers.Optimizer):
    """The base of the rules below, which apply `weight_decay` themselves, within the update, as PyTorch does.

    Keras' `exclude_from_weight_decay` says which variables do not decay.
    """

    def _apply_weight_decay(self, variables: list[keras.Variable]) -> None:
        pass  # `update_step` does

    def decay_of(self, variable: keras.Variable) -> float:
        return float(self.weight_decay) if self.weight_decay and self._use_weight_decay(variable) else 0.0


@keras.saving.register_keras_serializable("keras_project")
class SGD(TorchOptimizer):
    """g += decay w; v = momentum v + g; w -= lr (g + momentum v with Nesterov, else v).

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html, without dampening.
    """

    def __init__(self, learning_rate: Any, momentum: float = 0.0, nesterov: bool = False, **options):
        super().__init__(learning_rate, **options)
        self.momentum, self.nesterov = momentum, nesterov

    def build(self, variables: list[keras.Variable]) -> None:
        if not self.built:
            super().build(variables)
            self.velocities = self.add_optimizer_variables(variables, "velocity")

    def update_step(self, gradient: Tensor, variable: keras.Variable, learning_rate: Tensor) -> None:
        rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
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
    """g += decay w; m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2;
    w -= lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + epsilon).

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.Adam.html.
    """

    decoupled = False  # whether the weights decay by themselves, not through the gradient

    def __init__(self, learning_rate: Any, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-8,
                 **options):
        super().__init__(learning_rate, **options)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def build(self, variables: list[keras.Variable]) -> None:
        if not self.built:
            super().build(variables)
            self.means = self.add_optimizer_variables(variables, "mean")
            self.squares = self.add_optimizer_variables(variables, "square")

    def update_step(self, gradient: Tensor, variable: keras.Variable, learning_rate: Tensor) -> None:
        rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        index = self._get_variable_index(variable)
        mean, square = self.means[index], self.squares[index]
        if decay := self.decay_of(variable):
            if self.decoupled:
                self.assign(variable, variable * (1 - rate * decay))
            else:
                gradient = gradient + decay * variable
        self.assign(mean, self.beta_1 * mean + (1 - self.beta_1) * gradient)
        self.assign(square, self.beta_2 * square + (1 - self.beta_2) * gradient * gradient)
        # PyTorch computes the corrections in float64 on the host, whatever the weights are.
        t = ops.cast(self.iterations + 1, "float64")
        correction1 = ops.cast(1 - ops.power(ops.convert_to_tensor(self.beta_1, "float64"), t), variable.dtype)
        correction2 = ops.cast(ops.sqrt(1 - ops.power(ops.convert_to_tensor(self.beta_2, "float64"), t)),
                               variable.dtype)
        denominator = ops.sqrt(square) / correction2 + self.epsilon
        self.assign_sub(variable, rate / correction1 * (mean / denominator))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}


@keras.saving.register_keras_serializable("keras_project")
class AdamW(Adam):
    """Adam in which w -= lr decay w comes first and the gradient has no part of it (arXiv:1711.05101).

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.AdamW.html.
    """

    decoupled = True


@keras.saving.register_keras_serializable("keras_project")
class Muon(AdamW):
    """Muon for hidden matrices and convolution kernels, AdamW for all else. The same as the other sibling's.

    w -= lr decay w; m = momentum m + (1 - momentum) g; u = (1 - momentum) g + momentum m with Nesterov, else m;
    w -= lr 0.2 sqrt(max(rows, columns)) orthogonalize(u), where a kernel is the matrix (height x width x in, out).
    The factor makes an update as large as one of AdamW, so that both take one learning rate and one decay.

    Layers named in `exclude_layers`, which have to be the first and the last one, are left to AdamW, and so are kernels
    of depthwise convolutions, which mix no channels.
    Sources: https://kellerjordan.github.io/posts/muon/ and arXiv:2502.16982, section 2.2.
    """

    def __init__(self, learning_rate: Any, momentum: float = 0.95, nesterov: bool = True,
                 exclude_layers: Sequence[str] = (), **options):
        super().__init__(learning_rate, **options)
        self.momentum, self.nesterov, self.exclude_layers = momentum, nesterov, tuple(exclude_layers)

    def build(self, variables: list[keras.Variable]) -> None:
        if not self.built:
            excluded = belong_to(self.exclude_layers, variables)
            self.hidden = [is_decayed(variable.path, variable.shape, False) and 1 not in variable.shape[-2:]
                           and not is_excluded for variable, is_excluded in zip(variables, excluded, strict=True)]
            super().build(variables)

    def add_optimizer_variables(self, variables: list[keras.Variable], name: str, *rest: Any) -> list:
        """Optimizer variables as Keras adds them; Muon keeps no squares of a matrix's gradients."""
        if name != "square":
            return super().add_optimizer_variables(variables, name, *rest)
        return [None if hidden else self.add_variable_from_reference(variable, name)
                for variable, hidden in zip(variables, self.hidden, strict=True)]

    def update_step(self, gradient: Tensor, variable: keras.Variable, learning_rate: Tensor) -> None:
        index = self._get_variable_index(variable)
        if not self.hidden[index]:
            return super().update_step(gradient, variable, learning_rate)
        rate, mean = ops.cast(learning_rate, variable.dtype), self.means[index]
        gradient = ops.cast(gradient, variable.dtype)
        if decay := self.decay_of(variable):
            self.assign(variable, variable * (1 - rate * decay))
        self.assign(mean, self.momentum * mean + (1 - self.momentum) * gradient)
        update = (1 - self.momentum) * gradient + self.momentum * mean if self.nesterov else mean
        matrix = ops.reshape(update, (-1, variable.shape[-1]))
        size = ADAMW_SIZE * math.sqrt(max(matrix.shape))
        self.assign_sub(variable, rate * size * ops.reshape(orthogonalize(matrix), variable.shape))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov,
                "exclude_layers": self.exclude_layers}


def belong_to(layers: Sequence[str], variables: list[keras.Variable]) -> list[bool]:
    """Whether each of a model's variables is in one of `layers`, "block.norm" for a layer within a layer."""
    paths = [variable.path for variable in variables]
    roots = {path.partition("/")[0] for path in paths}
    if len(roots) == 1 and not roots & set(layers):  # the name of a Sequential or of a subclassed model
        paths = [path.partition("/")[2] for path in paths]
    return [path.replace("/", ".").startswith(tuple(f"{layer}." for layer in layers)) for path in paths]


def orthogonalize(matrix: Tensor) -> Tensor:
    """A matrix of the same shape and singular vectors with all singular values near 1, between about 0.7 and 1.2.

    Five steps of Newton-Schulz's iteration, in the matrix' own precision, where PyTorch's own Muon takes bfloat16.
    """
    a, b, c = NEWTON_SCHULZ
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = ops.transpose(matrix) if is_tall else matrix
    x = x / ops.maximum(ops.norm(x), 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = ops.matmul(x, ops.transpose(x))
        x = a * x + ops.matmul(b * gram + c * ops.matmul(gram, gram), x)
    return ops.transpose(x) if is_tall else x
