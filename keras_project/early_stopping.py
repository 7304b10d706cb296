"""Early stopping that a resumed run goes on with. In Lightning a few lines of its callbacks.py do, because Keras' own
forgets its count in each `fit`."""

import math
from typing import Any

from keras.callbacks import EarlyStopping


class ResumableEarlyStopping(EarlyStopping):
    """Early stopping that goes on counting where a resumed run left off."""

    def on_train_begin(self, logs: dict | None = None) -> None:
        kept = getattr(self, "kept", None)
        super().on_train_begin(logs)
        if kept:
            self.wait, self.best = kept["wait"], kept["best"]

    def on_train_end(self, logs: dict | None = None) -> None:
        super().on_train_end(logs)
        self.kept = self.state_dict()  # for the second `fit` of a run resumed within an epoch

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        if self.best is not None and math.isnan(self.best):  # Keras takes whatever comes first for an improvement
            self.best = None

    def state_dict(self) -> dict[str, Any]:
        return {"wait": self.wait, "best": None if self.best is None else float(self.best)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.kept = state_dict
