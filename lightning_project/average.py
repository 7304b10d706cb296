"""Copies of the weights beside the weights: the moving average of `train.ema_decay`, and those of
`train.lookahead_every`."""

from collections.abc import Callable
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging

from lightning_project.models import neutral_state, neutral_weights
from shared.config import Config
from shared.training.schedule import tabulate_average_decays, tabulate_lookahead
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


class Lookahead(Callback):
    """Every `train.lookahead_every` steps pulls slow weights, BatchNorm's statistics too, towards the weights, which go
    on from there."""

    def __init__(self, config: Config, steps: int):
        self.kept = tabulate_lookahead(config, steps)
        self.slow: dict[str, torch.Tensor] = {}
        self.step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.step = trainer.global_step
        start = self.slow or neutral_state(pl_module.model)
        self.slow = {name: start[name].detach().to(tensor.device, copy=True)
                     for name, tensor in neutral_state(pl_module.model).items() if tensor.is_floating_point()}

    @torch.no_grad()
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any,
                           batch_idx: int) -> None:
        kept = self.kept[trainer.global_step - 1]
        if trainer.global_step != self.step and not np.isnan(kept):  # that was the batch's last part
            weights = neutral_state(pl_module.model)
            fast = [weights[name] for name in self.slow]
            torch._foreach_lerp_(list(self.slow.values()), fast, 1 - kept)
            torch._foreach_copy_(fast, list(self.slow.values()))
        self.step = trainer.global_step

    def state_dict(self) -> dict[str, Any]:
        return {"slow": self.slow}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.slow = state_dict["slow"]
