"""Early stopping that goes on counting in a resumed run.

Keras' own begins to count anew in each `fit`. Lightning's does not, so the other sibling has only a few lines for this,
in callbacks.py.
"""

import math
from typing import Any

from keras.callbacks import EarlyStopping


class ResumableEarlyStopping(EarlyStopping):
    """Early stopping that goes on counting where a checkpoint or an earlier `fit` left off."""

    def on_train_begin(self, logs: dict | None = None) -> None:
        kept = getattr(self, "kept", None)
        super().on_train_begin(logs)
        if kept:
            self.wait, self.best = kept["wait"], kept["best"]

    def on_train_end(self, logs: dict | None = None) -> None:
        super().on_train_end(logs)
        self.kept = self.state_dict()  # a run that is resumed within an epoch calls `fit` twice

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        if self.best is not None and math.isnan(self.best):
            self.best = None  # Keras takes the first value for an improvement even if it is NaN

    def state_dict(self) -> dict[str, Any]:
        return {"wait": self.wait, "best": None if self.best is None else float(self.best)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.kept = state_dict
