"""Optimizer and learning rate: one table of optimizers, to which any class of PyTorch can be added as it is."""

from itertools import product
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lightning_project.models import find_entry
from lightning_project.update_rules import Lion, Muon
from shared.config import Config
from shared.errors import UserError
from shared.training.decay import is_decayed
from shared.training.schedule import list_rate_factors, tabulate_rate_factors

NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.LayerNorm, nn.GroupNorm,
                  nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


def adam_arguments(config: Config) -> dict[str, Any]:
    settings = config.optimizer
    return {"betas": (settings.beta1, settings.beta2), "eps": settings.eps}


def momentum_arguments(config: Config) -> dict[str, Any]:
    return {"momentum": config.optimizer.momentum, "nesterov": config.optimizer.nesterov}


def lion_arguments(config: Config) -> dict[str, Any]:
    return {"betas": (config.optimizer.beta1, config.optimizer.beta2)}


def muon_arguments(config: Config) -> dict[str, Any]:
    entry = find_entry(config.model.name)
    return adam_arguments(config) | momentum_arguments(config) | {
        "exclude_layers": (entry.first_kernel.rpartition(".")[0], *entry.heads)}


# `optimizer.name`: a class, and a function of the config that gives the arguments that are this class's own.
# A class of PyTorch is added as it is: "rmsprop": (torch.optim.RMSprop, lambda config: {"alpha": 0.99}).
OPTIMIZERS = {
    "sgd": (torch.optim.SGD, momentum_arguments),
    "adam": (torch.optim.Adam, adam_arguments),
    "adamw": (torch.optim.AdamW, adam_arguments),
    "lion": (Lion, lion_arguments),
    "muon": (Muon, muon_arguments),
}


def find_decayed(config: Config, model: nn.Module) -> set[str]:
    """Names of the parameters that decay. To be asked before FSDP flattens them."""
    return {name for name, parameter in model.named_parameters()
            if is_decayed(name, parameter.shape, config.optimizer.decay_norm_and_bias)}


def find_norm_biases(model: nn.Module) -> set[str]:
    """Names of the biases of normalisation layers."""
    return {f"{name}.bias" for name, module in model.named_modules() if isinstance(module, NORMALISATIONS)}


def build_optimizer(config: Config, model: nn.Module, decayed: set[str]) -> Optimizer:
    """The optimizer with groups of parameters: of the head and of the rest those that decay and those that do not, and
    of all these the biases of normalisation layers, where they have a learning rate of their own.

    What is frozen is in them, and is passed over as long as it has no gradient.

    Raises:
        UserError: where the class does not take what the config asks for.
    """
    settings, entry = config.optimizer, find_entry(config.model.name)
    groups, factors, norm_biases = [], [1.0], set()
    if settings.norm_bias_lr_factor != 1:
        factors, norm_biases = [1.0, settings.norm_bias_lr_factor], find_norm_biases(model)
    for factor, of_head, decays in product(factors, (True, False), (True, False)):
        parameters = {name: parameter for name, parameter in model.named_parameters()
                      if entry.is_of_head(name) == of_head and (name in decayed) == decays
                      and (name in norm_biases) == (factor != 1)}
        rate = factor * settings.lr * (1.0 if of_head else settings.backbone_lr_factor)
        groups.append({"params": list(parameters.values()), "names": list(parameters), "lr": rate,
                       "weight_decay": settings.weight_decay / factor if decays else 0.0})
    kind, arguments = OPTIMIZERS[settings.name]
    try:
        return kind(groups, lr=settings.lr, **arguments(config))
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer.name={settings.name}: torch's {kind.__name__} refuses its arguments ({error}); "
                        "change the keys of optimizer, or its entry in lightning_project/optim.py") from None


def refuse_lost_settings(config: Config, optimizer: Optimizer) -> None:
    """Refuse an optimizer that would leave out what the config asks for.

    Raises:
        UserError: naming the key.
    """
    settings, train, name = config.optimizer, config.train, type(optimizer).__name__
    rates = {group["lr"] for group in optimizer.param_groups}
    is_fused = getattr(optimizer, "_step_supports_amp_scaling", False)
    for is_lost, words in (
        (train.grad_clip and config.hardware.precision == "fp16" and is_fused,
         f"train.grad_clip={train.grad_clip:g} is not for a fused {name} under hardware.precision=fp16, which takes "
         "the scale off the gradient itself; leave fused=True out, or set train.grad_clip=0"),
        *((factor != 1 and len(rates) == 1,
           f"optimizer.{key}={factor:g}, but all parameters of this {name} have one learning rate; give it the groups "
           f"of build_optimizer in lightning_project/optim.py, or set optimizer.{key}=1")
          for key, factor in list_rate_factors(config).items()),
        (settings.weight_decay and "weight_decay" not in optimizer.defaults,
         f"optimizer.weight_decay={settings.weight_decay:g} is not for {name}, which has no weight decay; set "
         "optimizer.weight_decay=0"),
    ):
        if is_lost:
            raise UserError(words)


def build_schedule(config: Config, optimizer: Optimizer, steps: int) -> LambdaLR:
    """The shared table of learning rates; PyTorch asks for one step beyond the last, which nothing uses."""
    factors = tabulate_rate_factors(config, steps)
    return LambdaLR(optimizer, lambda step: float(factors[min(step, len(factors) - 1)]))
