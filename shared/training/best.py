"""The best epoch so far."""

import math
from typing import Any

from shared.config import Config, find_direction


class BestEpoch:
    """The best value of `train.monitor` so far and its `epoch`, counted from 1; before the first, None and 0.

    Of equal values the earlier epoch stays the best. Any number is better than NaN.
    """

    def __init__(self, config: Config):
        self.monitor, self.direction = config.train.monitor, find_direction(config)
        self.value: float | None = None
        self.epoch = 0

    def update(self, value: float, epoch: int) -> bool:
        """Take note of an epoch's `value`, and return whether it is the best so far."""
        if self.value is None or math.isnan(self.value):
            better = self.value is None or not math.isnan(value)
        else:
            better = value > self.value if self.direction == "max" else value < self.value
        if better:
            self.value, self.epoch = value, epoch
        return better

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value, self.epoch = state["value"], int(state["epoch"])
