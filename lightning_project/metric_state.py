"""What metrics have counted so far, kept across a stop within an epoch. PyTorch's torchmetrics keep it on each process;
Keras keeps it in variables, which its checkpoints hold anyway."""

from typing import Any

import torch
from torch import distributed, nn


def save_metric_state(metrics: nn.ModuleDict) -> dict[str, list[Any]]:
    """`{metric.state: [its value in each process]}`, on the CPU."""
    own = {f"{name}.{state}": to_cpu(getattr(metric, state)) for name, metric in metrics.items()
           for state in metric._defaults}
    parts = [own]
    if distributed.is_initialized():
        parts = [None] * distributed.get_world_size()
        distributed.all_gather_object(parts, own)
    return {name: [part[name] for part in parts] for name in own}


def load_metric_state(metrics: nn.ModuleDict, kept: dict[str, Any], rank: int, processes: int) -> None:
    """Put back what `save_metric_state` kept.

    On another number of processes than it was kept on, the first goes on with everybody's counts and the others from
    nothing.
    """
    for full_name, values in kept.items():
        name, _, state = full_name.rpartition(".")
        metric = metrics[name]
        if len(values) != processes and rank > 0:
            continue
        value = values[rank] if len(values) == processes else merge(list(values), metric._reductions[state])
        setattr(metric, state, [part.to(metric.device) for part in value] if isinstance(value, list) else
                value.to(metric.device))
        metric._update_count = 1


def to_cpu(value: Any) -> Any:
    return [part.detach().cpu() for part in value] if isinstance(value, list) else value.detach().cpu()


def merge(values: list[Any], reduction: Any) -> Any:
    """The states of several processes as one; `reduction` is torchmetrics' own, of tensors stacked along axis 0."""
    if isinstance(values[0], list):
        return [part for value in values for part in value]
    stacked = torch.stack(values)
    return reduction(stacked) if reduction else stacked.sum(dim=0)
