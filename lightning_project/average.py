"""Averaged weights: `train.ema_decay`."""

from collections.abc import Callable

import torch
from lightning.pytorch.callbacks import WeightAveraging

from lightning_project.models import neutral_weights
from shared.config import Config
from shared.training.schedule import tabulate_average_decays
from shared.weights.file import Weights


class Average(WeightAveraging):
    """Keeps an average of all weights, `train.ema_decay`, and puts it in their place during validation."""

    def get_weights(self) -> Weights:
        return neutral_weights(self._average_model.module.model)


def build_average_update(config: Config, steps: int) -> Callable[[list[torch.Tensor], list[torch.Tensor], torch.Tensor], None]:
    """What `Average` does at each step: average += (1 - decay) (weight - average)."""
    decays = tabulate_average_decays(config, steps)

    def move(averages: list[torch.Tensor], weights: list[torch.Tensor], updates: torch.Tensor) -> None:
        if averages[0].is_floating_point():  # BatchNorm's count of batches, which nobody uses, is none
            torch._foreach_lerp_(averages, weights, 1 - decays[int(updates)])
    return move
