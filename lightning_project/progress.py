"""Progress bars."""

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm


class ProgressBars(TQDMProgressBar):
    """Lightning's progress bars, but on stderr, apart from the output, and cleared after each pass over the data."""

    def on_train_epoch_start(self, trainer: L.Trainer, *rest: Any) -> None:
        super().on_train_epoch_start(trainer, *rest)
        self.train_progress_bar.set_description(f"epoch {trainer.current_epoch + 1}")  # Lightning's counts from 0

    def init_train_tqdm(self) -> Tqdm:
        return start_bar(super().init_train_tqdm)

    def init_validation_tqdm(self) -> Tqdm:
        return start_bar(super().init_validation_tqdm)

    def init_predict_tqdm(self) -> Tqdm:
        return start_bar(super().init_predict_tqdm)


def start_bar(init: Callable[[], Tqdm]) -> Tqdm:
    """Start the bar that Lightning's `init` makes."""
    with contextlib.redirect_stdout(sys.stderr):
        bar = init()
    bar.leave = False
    return bar
