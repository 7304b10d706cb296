"""The callbacks of a training: `build_callbacks` lists them in the order in which they run."""

import sys
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping
from torch import nn

from lightning_project.average import Average, Lookahead, build_average_update
from lightning_project.checkpoints import BestWeightsWriter, CheckpointWriter
from lightning_project.models import find_entry
from lightning_project.progress import ProgressBars
from shared.config import Config, find_direction
from shared.training.recorder import Recorder
from shared.training.schedule import is_frozen
from shared.training.seams import explain_missing_monitor


def build_callbacks(config: Config, recorder: Recorder, classes: tuple[str, ...]) -> list[Callback]:
    """All callbacks of a training, in the order in which they run."""
    train, debug = config.train, config.debug
    average = Average(multi_avg_fn=build_average_update(config, recorder.steps)) if train.ema_decay else None
    callbacks: list[Callback] = [
        # Your own callbacks, one a line.
    ]
    if train.lookahead_every:
        callbacks.append(Lookahead(config, recorder.steps))
    if average:  # of what lookahead leaves
        callbacks.append(average)
    if train.early_stopping_patience:
        # With check_finite=False a loss that is not finite counts as no improvement, as in Keras. With strict=False a
        # monitor that is missing is left to RecorderCallback, which says what was logged instead.
        callbacks.append(ResumableEarlyStopping(
            train.monitor, mode=find_direction(config), min_delta=0.0, patience=train.early_stopping_patience,
            check_on_train_epoch_end=True, check_finite=False, strict=False))
    if config.model.freeze == "backbone":
        callbacks.append(BackboneFreezer(config))
    if sys.stderr.isatty():
        callbacks.append(ProgressBars())
    if debug.profile:
        callbacks.append(Profiler(recorder))
    # Lightning calls these three after all others. CheckpointWriter is the last, so that it saves the others' state.
    return [*callbacks, RecorderCallback(recorder), BestWeightsWriter(config, recorder, classes, average),
            CheckpointWriter(recorder)]


class RecorderCallback(Checkpoint):
    """Passes the loss of each step and the metrics of each epoch to the recorder.

    It is a Checkpoint because Lightning calls checkpoints after all other callbacks and after the module's own hooks,
    so that all they have logged is there.
    """

    state_key = "Record"  # in checkpoints, so that those of older runs can be read

    def __init__(self, recorder: Recorder):
        self.recorder = recorder
        self.clock: dict[str, float] | None = None
        self.loss = 0.0  # the sum over the parts so far of the batch in progress
        self.gradient_norm = torch.zeros(())

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        monitor = self.recorder.config.train.monitor
        if monitor not in pl_module.logged and not monitor.startswith("train/"):
            # One batch of validation shows what else is logged, before time is spent on training.
            trainer.num_sanity_val_steps = 1

    def on_sanity_check_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.recorder.config.train.monitor not in (logged := collect_metrics(trainer)):
            raise explain_missing_monitor(self.recorder.config, [*pl_module.logged, *logged])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.recorder.stop.install_handlers()  # again, since Lightning has replaced that of SIGTERM
        if trainer.global_step or self.recorder.run.resumed:
            self.recorder.rewind(trainer.global_step, self.clock)
        if trainer.global_step % self.recorder.steps:  # within an epoch Lightning does not call on_train_epoch_start
            self.recorder.begin_epoch()

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        if trainer.scaler is None:  # a scaler, for fp16, skips steps whose gradients overflow
            self.gradient_norm = nn.utils.get_total_norm(
                [parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None])

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.recorder.begin_epoch()

    def on_train_batch_start(self, trainer: L.Trainer, *rest: Any) -> None:
        trainer.logger.within_epoch = True

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any,
                           batch_idx: int) -> None:
        # The loss of a part is already divided by the number of parts; this adds its mean over all processes.
        self.loss += float(trainer.strategy.reduce(outputs["loss"], reduce_op="mean"))
        if trainer.global_step != self.recorder.step:  # this was the last part of the batch
            self.recorder.end_step(trainer.global_step, self.loss, float(self.gradient_norm))
            self.loss = 0.0

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            trainer.logger.within_epoch = False
            self.recorder.end_training_pass()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.recorder.end_epoch(trainer.global_step, collect_metrics(trainer))

    def state_dict(self) -> dict[str, Any]:
        return self.recorder.read_clock()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.clock = state_dict


def collect_metrics(trainer: L.Trainer) -> dict[str, float]:
    """All metrics that were logged in this epoch, by name."""
    found = {name: float(value) for name, value in trainer.callback_metrics.items()}
    # A metric that is logged for steps and for epochs has three names: x for the epoch, x_step and x_epoch.
    duplicates = {f"{name}{ending}" for name in found for ending in ("_step", "_epoch")}
    return {name: value for name, value in found.items() if name not in duplicates}


class ResumableEarlyStopping(EarlyStopping):
    """Early stopping that ends a run at once if it had already ended it before the run was resumed."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.wait_count >= self.patience:
            trainer.should_stop = True


class BackboneFreezer(Callback):
    """Freezes all parameters but those of the head, and BatchNorm's statistics, in the epochs that the config names."""

    def __init__(self, config: Config):
        self.config = config
        self.fixed: set[str] = set()

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.fixed = {name for name, parameter in pl_module.model.named_parameters() if not parameter.requires_grad}

    # Before each batch: Lightning calls no hook of an epoch's start where a run is resumed within it, and after
    # validation it sets all modules to training mode.
    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any,
                             batch_idx: int) -> None:
        frozen, entry = is_frozen(self.config, trainer.current_epoch), find_entry(self.config.model.name)
        for name, parameter in pl_module.model.named_parameters():
            if name not in self.fixed:  # a parameter that never trains stays as its model has it
                parameter.requires_grad_(not frozen or entry.is_of_head(name))
        for module in pl_module.model.modules():
            if hasattr(module, "running_var"):  # BatchNorm, and what else keeps statistics of batches
                module.train(not frozen)


class Profiler(Callback):
    """Profiles the second epoch, or the only one, and writes profile.json, a trace for Perfetto."""

    def __init__(self, recorder: Recorder):
        self.recorder = recorder
        self.profiler = None

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Of several processes one, since they would write the same file.
        if self.recorder.run.leader and trainer.current_epoch == min(1, trainer.max_epochs - 1):
            self.profiler = torch.profiler.profile()
            self.profiler.start()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.profiler:
            self.profiler.stop()
            self.profiler.export_chrome_trace(str(self.recorder.run.folder / "profile.json"))
            self.profiler = None
