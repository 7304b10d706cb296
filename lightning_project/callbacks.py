"""What happens around training: records, checkpoints, early stopping, progress."""

import pickle
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, TQDMProgressBar

from lightning_project.models import neutral_weights
from shared.best import DIRECTIONS, Best
from shared.config import Config
from shared.errors import UserError
from shared.recorder import Recorder
from shared.weights import save

EPOCH_METRICS = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")


class Record(Callback):
    """Hands every step's loss and every epoch's metrics to the recorder."""

    def __init__(self, recorder: Recorder):
        self.recorder = recorder

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step:
            self.recorder.rewind(trainer.global_step)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.recorder.epoch_begins()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any,
                           batch_idx: int) -> None:
        self.recorder.step_ends(trainer.global_step, float(outputs["loss"]))

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.recorder.training_ends()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        metrics = trainer.callback_metrics
        self.recorder.epoch_ends(trainer.global_step, {name: float(metrics[name]) for name in EPOCH_METRICS})


class SaveBest(Callback):
    """Writes best.safetensors, in the neutral format, whenever an epoch is the best so far."""

    def __init__(self, config: Config, recorder: Recorder, classes: tuple[str, ...]):
        self.config, self.recorder, self.classes = config, recorder, classes
        self.best = Best(config.train.monitor)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.best.update(float(trainer.callback_metrics[self.best.monitor]), trainer.current_epoch + 1):
            save(self.recorder.run.best_weights, neutral_weights(pl_module.model), self.config, self.classes)
        self.recorder.best_epoch = self.best.epoch

    def state_dict(self) -> dict[str, Any]:
        return self.best.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best.restore(state_dict)


def checked(checkpoint: Path | None) -> Path | None:
    """`checkpoint` if PyTorch can read it. Raises `UserError` naming it where it is damaged or holds code."""
    if checkpoint is not None:
        try:
            torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError, OSError) as error:
            raise UserError(f"{checkpoint} is damaged or no checkpoint of ours ({str(error).splitlines()[0][:80]}); "
                            "start from the best weights with init_from=, or train anew") from None
    return checkpoint


def build_callbacks(config: Config, recorder: Recorder, classes: tuple[str, ...]) -> list[Callback]:
    """All callbacks of a training, in the order in which they run."""
    train, debug = config.train, config.debug
    callbacks = [Record(recorder), SaveBest(config, recorder, classes)]
    if train.early_stopping_patience:
        callbacks.append(EarlyStopping(train.monitor, mode=DIRECTIONS[train.monitor], min_delta=0.0,
                                       patience=train.early_stopping_patience, check_on_train_epoch_end=True,
                                       check_finite=False))  # a loss that is not finite is no improvement, as in Keras
    if sys.stderr.isatty():
        callbacks.append(TQDMProgressBar(leave=False))
    if debug.profile:
        callbacks.append(Profile(recorder))
    # The last one, so that what the others count is in the checkpoint.
    callbacks.append(ModelCheckpoint(recorder.run.checkpoints, "last", save_on_train_epoch_end=True,
                                     enable_version_counter=False))
    return callbacks


class Profile(Callback):
    """Profiles the second epoch, or the first where there is only one, into a trace that Perfetto opens."""

    def __init__(self, recorder: Recorder):
        self.recorder = recorder
        self.profiler = None

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch == min(1, trainer.max_epochs - 1):
            self.profiler = torch.profiler.profile()
            self.profiler.start()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.profiler:
            self.profiler.stop()
            self.profiler.export_chrome_trace(str(self.recorder.run.folder / "profile.json"))
            self.profiler = None
