"""Optimizer and learning rate. The formulas are PyTorch's own; keras_project follows them."""

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lightning_project.models import find_entry
from shared.config import Config
from shared.training.decay import is_decayed
from shared.training.schedule import tabulate_rate_factors


def find_decayed(config: Config, model: nn.Module) -> set[str]:
    """Names of the parameters that decay. To be asked before FSDP flattens them."""
    return {name for name, parameter in model.named_parameters()
            if is_decayed(parameter.shape, config.optimizer.decay_norm_and_bias)}


def build_optimizer(config: Config, model: nn.Module, decaying: set[str]) -> Optimizer:
    """The optimizer with groups of parameters: those that decay and those that do not, of the head and of the rest.

    What is frozen is in them, and is passed over as long as it has no gradient.
    """
    settings, head = config.optimizer, find_entry(config.model.name).head
    groups = [{"params": [], "lr": settings.lr * factor, "weight_decay": decay}
              for factor in (1.0, settings.backbone_lr_factor) for decay in (settings.weight_decay, 0.0)]
    for name, parameter in model.named_parameters():
        group = 0 if name in decaying else 1
        groups[group if name.startswith(f"{head}.") else group + 2]["params"].append(parameter)
    if settings.name == "sgd":
        return SGD(groups, settings.lr, settings.momentum, nesterov=settings.nesterov)
    rule = {"adam": Adam, "adamw": AdamW}[settings.name]
    return rule(groups, settings.lr, (settings.beta1, settings.beta2), settings.eps)


def build_schedule(config: Config, optimizer: Optimizer, steps: int) -> LambdaLR:
    """The shared table of learning rates; PyTorch asks for one step beyond the last, which nothing uses."""
    factors = tabulate_rate_factors(config, steps)
    return LambdaLR(optimizer, lambda step: float(factors[min(step, len(factors) - 1)]))
