"""Which epoch was the best so far."""

import math
from typing import Any

from shared.config import Config, find_direction


class Best:
    """Keeps the best value of `train.monitor` and its epoch, counted from 1. The earlier epoch wins a tie, and NaN loses to
    any number."""

    def __init__(self, config: Config):
        self.monitor, self.direction = config.train.monitor, find_direction(config)
        self.value: float | None = None
        self.epoch = 0

    def update(self, value: float, epoch: int) -> bool:
        """Whether `value` is better than all before; if so it is the best from now on."""
        if self.value is None or math.isnan(self.value):
            better = self.value is None or not math.isnan(value)
        else:
            better = value > self.value if self.direction == "max" else value < self.value
        if better:
            self.value, self.epoch = value, epoch
        return better

    def state(self) -> dict[str, Any]:
        return {"value": self.value, "epoch": self.epoch}

    def restore(self, state: dict[str, Any]) -> None:
        self.value, self.epoch = state["value"], int(state["epoch"])
