"""Update rules that PyTorch does not have: Lion, and Muon for more than the 2-D parameters that its own takes."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from shared.training.decay import is_decayed

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of https://kellerjordan.github.io/posts/muon/
NEWTON_SCHULZ_STEPS = 5
ADAMW_SIZE = 0.2  # root mean square of a usual update of AdamW, arXiv:2502.16982, section 2.2


class Lion(Optimizer):
    """w -= lr decay w; w -= lr sign(b1 m + (1 - b1) g); m = b2 m + (1 - b2) g.

    Source: arXiv:2302.06675, algorithm 2. Keras has it as `keras.optimizers.Lion`.
    """

    def __init__(self, params: Iterable, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99),
                 weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> Any:
        loss = evaluate(closure)
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            if parameters := [parameter for parameter in group["params"] if parameter.grad is not None]:
                gradients = [parameter.grad for parameter in parameters]
                means = [find_state(self, parameter, "mean") for parameter in parameters]
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                updates = torch._foreach_lerp(means, gradients, 1 - beta1)
                torch._foreach_sign_(updates)
                torch._foreach_add_(parameters, updates, alpha=-group["lr"])
                torch._foreach_lerp_(means, gradients, 1 - beta2)
        return loss


class Muon(Optimizer):
    """Muon for hidden matrices and convolution kernels, AdamW for all else. The same as the other sibling's.

    w -= lr decay w; m = momentum m + (1 - momentum) g; u = (1 - momentum) g + momentum m with Nesterov, else m;
    w -= lr 0.2 sqrt(max(rows, columns)) orthogonalize(u), where a kernel is the matrix (out, in x height x width).
    The factor makes an update as large as one of AdamW, so that both take one learning rate and one decay.

    Each group of parameters has their "names". Layers named in `exclude_layers`, which have to be the first and the
    last one, are left to AdamW, and so are kernels of depthwise convolutions, which mix no channels.
    Sources: https://kellerjordan.github.io/posts/muon/ and arXiv:2502.16982, section 2.2.
    """

    def __init__(self, params: Iterable[dict], lr: float = 1e-3, momentum: float = 0.95, nesterov: bool = True,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.01,
                 exclude_layers: Sequence[str] = ()):
        self.excluded = tuple(f"{layer}." for layer in exclude_layers)
        super().__init__(params, {"lr": lr, "momentum": momentum, "nesterov": nesterov, "betas": betas, "eps": eps,
                                  "weight_decay": weight_decay})

    def is_hidden_matrix(self, name: str, parameter: torch.Tensor) -> bool:
        return is_decayed(name, parameter.shape, False) and 1 not in parameter.shape[:2] \
            and not name.startswith(self.excluded)

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> Any:
        loss = evaluate(closure)
        for group in self.param_groups:
            others = []
            for name, parameter in zip(group["names"], group["params"], strict=True):
                if parameter.grad is not None:
                    if self.is_hidden_matrix(name, parameter):
                        self.update_matrix(parameter, group)
                    else:
                        others.append(parameter)
            self.update_others(others, group)
        return loss

    def update_matrix(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        mean = find_state(self, parameter, "mean")
        mean.lerp_(parameter.grad, 1 - group["momentum"])
        update = parameter.grad.lerp(mean, group["momentum"]) if group["nesterov"] else mean
        matrix = update.flatten(1)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(orthogonalize(matrix).view_as(parameter),
                       alpha=-group["lr"] * ADAMW_SIZE * math.sqrt(max(matrix.shape)))

    def update_others(self, parameters: list[torch.Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            self.state[parameter].setdefault("step", torch.zeros(()))
        beta1, beta2 = group["betas"]
        adamw(parameters, [parameter.grad for parameter in parameters],
              *([find_state(self, parameter, name) for parameter in parameters] for name in ("mean", "square")), [],
              [self.state[parameter]["step"] for parameter in parameters], amsgrad=False, beta1=beta1, beta2=beta2,
              lr=group["lr"], weight_decay=group["weight_decay"], eps=group["eps"], maximize=False)


def orthogonalize(matrix: torch.Tensor) -> torch.Tensor:
    """A matrix of the same shape and singular vectors with all singular values near 1, between about 0.7 and 1.2.

    Five steps of Newton-Schulz's iteration, in the matrix' own precision, where PyTorch's own Muon takes bfloat16.
    """
    a, b, c = NEWTON_SCHULZ
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if is_tall else x


def find_state(optimizer: Optimizer, parameter: torch.Tensor, name: str) -> torch.Tensor:
    """A tensor like `parameter` that the optimizer keeps for it, zeros at first."""
    state = optimizer.state[parameter]
    if name not in state:
        state[name] = torch.zeros_like(parameter)
    return state[name]


def evaluate(closure: Callable | None) -> Any:
    """The loss of `closure`, within which Lightning computes the gradients."""
    with torch.enable_grad():
        return closure() if closure else None
