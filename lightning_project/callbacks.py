"""What is added to a training: one list, in the order in which it runs."""

import sys
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping
from torch import nn

from lightning_project.average import Average, move_averages
from lightning_project.checkpoints import SaveBest, SaveLast
from lightning_project.models import find_entry
from lightning_project.progress import ProgressBars
from shared.config import Config, find_direction
from shared.training.recorder import Recorder
from shared.training.schedule import is_frozen
from shared.training.seams import explain_missing_monitor


def build_callbacks(config: Config, recorder: Recorder, classes: tuple[str, ...]) -> list[Callback]:
    """All callbacks of a training, in the order in which they run."""
    train, debug = config.train, config.debug
    average = Average(multi_avg_fn=move_averages(config, recorder.steps)) if train.ema_decay else None
    callbacks: list[Callback] = [
        # Your own callbacks, one a line.
    ]
    if average:
        callbacks.append(average)
    if train.early_stopping_patience:
        # A loss that is not finite is no improvement, as in Keras.
        callbacks.append(ResumableEarlyStopping(
            train.monitor, mode=find_direction(config), min_delta=0.0, patience=train.early_stopping_patience,
            check_on_train_epoch_end=True, check_finite=False, strict=False))  # Record tells what is missing
    if config.model.freeze == "backbone":
        callbacks.append(Freeze(config))
    if sys.stderr.isatty():
        callbacks.append(ProgressBars())
    if debug.profile:
        callbacks.append(Profile(recorder))
    # Lightning calls these after all others. SaveLast comes last, so that what the others count is in the checkpoint.
    return [*callbacks, Record(recorder), SaveBest(config, recorder, classes, average), SaveLast(recorder)]


class Record(Checkpoint):
    """Hands every step's loss and every epoch's metrics to the recorder.

    It is a Checkpoint because Lightning calls those after all other callbacks and after the module's own hooks, so that
    whatever these have logged is there.
    """

    def __init__(self, recorder: Recorder):
        self.recorder = recorder
        self.clock: dict[str, float] | None = None
        self.loss = 0.0  # of the parts of the batch in progress
        self.gradient_norm = torch.zeros(())

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        monitor = self.recorder.config.train.monitor
        if monitor not in pl_module.logged and not monitor.startswith("train/"):
            trainer.num_sanity_val_steps = 1  # one batch of validation tells what else is logged, before time is spent

    def on_sanity_check_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.recorder.config.train.monitor not in (logged := collect_metrics(trainer)):
            raise explain_missing_monitor(self.recorder.config, [*pl_module.logged, *logged])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.recorder.stop.install()  # Lightning has just taken SIGTERM for itself
        if trainer.global_step or self.recorder.run.resumed:
            self.recorder.rewind(trainer.global_step, self.clock)
        if trainer.global_step % self.recorder.steps:  # then Lightning skips on_train_epoch_start
            self.recorder.epoch_begins()

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        if trainer.scaler is None:  # with one, a gradient that overflows is skipped and the scale lowered
            self.gradient_norm = nn.utils.get_total_norm(
                [parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None])

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.recorder.epoch_begins()

    def on_train_batch_start(self, trainer: L.Trainer, *rest: Any) -> None:
        trainer.logger.within_epoch = True

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any,
                           batch_idx: int) -> None:
        # A part's loss is divided by the number of parts already; here, the mean over all processes.
        self.loss += float(trainer.strategy.reduce(outputs["loss"], reduce_op="mean"))
        if trainer.global_step != self.recorder.step:  # that was the batch's last part
            self.recorder.step_ends(trainer.global_step, self.loss, float(self.gradient_norm))
            self.loss = 0.0

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            trainer.logger.within_epoch = False
            self.recorder.training_ends()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.recorder.epoch_ends(trainer.global_step, collect_metrics(trainer))

    def state_dict(self) -> dict[str, Any]:
        return self.recorder.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.clock = state_dict


def collect_metrics(trainer: L.Trainer) -> dict[str, float]:
    """All that was logged in this epoch, by name."""
    found = {name: float(value) for name, value in trainer.callback_metrics.items()}
    # What is logged for steps and epochs has three names; the one without an ending is the epoch's.
    twins = {f"{name}{ending}" for name in found for ending in ("_step", "_epoch")}
    return {name: value for name, value in found.items() if name not in twins}


class ResumableEarlyStopping(EarlyStopping):
    """Early stopping that also ends a run which is resumed after its last epoch."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.wait_count >= self.patience:
            trainer.should_stop = True


class Freeze(Callback):
    """Keeps all but the head as it is, BatchNorm's statistics too, in the epochs that the config says."""

    def __init__(self, config: Config):
        self.config = config

    # At each batch, because a run resumed within an epoch begins none, and validation puts modules back into training.
    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any,
                             batch_idx: int) -> None:
        frozen, entry = is_frozen(self.config, trainer.current_epoch), find_entry(self.config.model.name)
        for name, parameter in pl_module.model.named_parameters():
            parameter.requires_grad_(not frozen or entry.is_of_head(name))
        for module in pl_module.model.modules():
            if hasattr(module, "running_var"):  # BatchNorm, and what else keeps statistics of batches
                module.train(not frozen)


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
