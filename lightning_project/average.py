"""The moving average of the weights: `train.ema_decay`."""

from collections.abc import Callable

import torch
from lightning.pytorch.callbacks import WeightAveraging

from lightning_project.models import neutral_weights
from shared.config import Config
from shared.training.schedule import tabulate_average_decays
from shared.weights.file import Weights


class Average(WeightAveraging):
    """Keeps a moving average of all weights, and uses it in place of the weights during validation."""

    def get_weights(self) -> Weights:
        """The average, under the weights' neutral names."""
        return neutral_weights(self._average_model.module.model)


def build_average_update(
        config: Config, steps: int) -> Callable[[list[torch.Tensor], list[torch.Tensor], torch.Tensor], None]:
    """The update of `Average` at each step, average += (1 - decay) (weight - average); `steps` is per epoch."""
    decays = tabulate_average_decays(config, steps)

    def update(averages: list[torch.Tensor], weights: list[torch.Tensor], updates: torch.Tensor) -> None:
        if averages[0].is_floating_point():  # BatchNorm's count of batches is an integer, and nobody uses it
            torch._foreach_lerp_(averages, weights, 1 - decays[int(updates)])
    return update
