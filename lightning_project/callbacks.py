"""What happens around training: records, checkpoints, early stopping, progress."""

import contextlib
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping, TQDMProgressBar, WeightAveraging
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_project.models import neutral_shapes, neutral_weights
from shared.best import DIRECTIONS, Best
from shared.config import Config
from shared.models import head_module
from shared.recorder import Recorder
from shared.runs import refuse_checkpoint, write_checkpoint
from shared.schedule import average_decays, is_frozen
from shared.weights import Weights, save

EPOCH_METRICS = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")


class Record(Callback):
    """Hands every step's loss and every epoch's metrics to the recorder."""

    def __init__(self, recorder: Recorder):
        self.recorder = recorder
        self.clock: dict[str, float] | None = None
        self.loss = 0.0  # of the parts of the batch in progress
        self.gradient_norm = torch.zeros(())

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

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any,
                           batch_idx: int) -> None:
        # A part's loss is divided by the number of parts already; here, the mean over all processes.
        self.loss += float(trainer.strategy.reduce(outputs["loss"], reduce_op="mean"))
        if trainer.global_step != self.recorder.step:  # that was the batch's last part
            self.recorder.step_ends(trainer.global_step, self.loss, float(self.gradient_norm))
            self.loss = 0.0

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.recorder.training_ends()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        metrics = trainer.callback_metrics
        self.recorder.epoch_ends(trainer.global_step, {name: float(metrics[name]) for name in EPOCH_METRICS})

    def state_dict(self) -> dict[str, Any]:
        return self.recorder.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.clock = state_dict


class Average(WeightAveraging):
    """Keeps an average of all weights, `train.ema_decay`, and puts it in their place during validation."""

    def weights(self) -> Weights:
        return neutral_weights(self._average_model.module.model)


def move_averages(config: Config, steps: int) -> Callable[[list[torch.Tensor], list[torch.Tensor], torch.Tensor], None]:
    """What `Average` does at each step: average += (1 - decay) (weight - average)."""
    decays = average_decays(config, steps)

    def move(averages: list[torch.Tensor], weights: list[torch.Tensor], updates: torch.Tensor) -> None:
        if averages[0].is_floating_point():  # BatchNorm's count of batches, which nobody uses, is none
            torch._foreach_lerp_(averages, weights, 1 - decays[int(updates)])
    return move


class SaveBest(Callback):
    """Writes best.safetensors, in the neutral format, whenever an epoch is the best so far."""

    def __init__(self, config: Config, recorder: Recorder, classes: tuple[str, ...], average: Average | None):
        self.config, self.recorder, self.classes, self.average = config, recorder, classes, average
        self.best = Best(config.train.monitor)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.best.update(float(trainer.callback_metrics[self.best.monitor]), trainer.current_epoch + 1):
            state = trainer.strategy.lightning_module_state_dict()  # of all processes, where a model is shared out
            if self.recorder.run.leader:
                weights = self.average.weights() if self.average else \
                    {name: state[f"model.{name}"].cpu().numpy() for name in neutral_shapes(pl_module.model)}
                save(self.recorder.run.best_weights, weights, self.config, self.classes)
        self.recorder.best_epoch = self.best.epoch

    def state_dict(self) -> dict[str, Any]:
        return self.best.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best.restore(state_dict)


class ResumableEarlyStopping(EarlyStopping):
    """Early stopping that also ends a run which is resumed after its last epoch."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.wait_count >= self.patience:
            trainer.should_stop = True


class SaveLast(Checkpoint):
    """Writes checkpoints/last.ckpt after each epoch, every `train.checkpoint_every_steps`, and before a stop.

    A Checkpoint, because Lightning lets no other callback come after early stopping, whose count belongs into the file.
    """

    def __init__(self, recorder: Recorder):
        self.recorder, self.file = recorder, recorder.run.checkpoints / "last.ckpt"
        self.step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.step = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any,
                           batch_idx: int) -> None:
        agree_to_stop(trainer, self.recorder)
        if trainer.global_step != self.step and self.recorder.checkpoint_due(trainer.global_step):
            self.save(trainer)
        self.step = trainer.global_step

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        agree_to_stop(trainer, self.recorder)
        self.save(trainer)

    def save(self, trainer: L.Trainer) -> None:
        write_checkpoint(self.file, lambda path: trainer.save_checkpoint(path, weights_only=False),
                         self.recorder.run.leader)
        if self.recorder.stop.signal is not None:
            raise self.recorder.stopped(trainer.global_step, self.recorder.stop.signal)


def agree_to_stop(trainer: L.Trainer, recorder: Recorder) -> None:
    """A signal that one process got becomes everybody's, so that all stop at the same step."""
    stop = recorder.stop
    if trainer.world_size > 1 and trainer.strategy.reduce_boolean_decision(stop.signal is not None, all=False):
        stop.signal = stop.signal or signal.SIGTERM


def checked(checkpoint: Path | None, model: nn.Module) -> Path | None:
    """`checkpoint`, if any, once it is known to be whole and of `model`.

    Raises:
        UserError: naming the file where it is damaged, holds code or belongs to something else.
    """
    if checkpoint is None:
        return None
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        shapes = {name.removeprefix("model."): tuple(tensor.shape) for name, tensor in content["state_dict"].items()}
        whole = {"loops", "optimizer_states", "lr_schedulers", "callbacks"} <= content.keys()
    except Exception as error:  # torch raises whatever its zip reader, its unpickler or a foreign content lead to
        raise refuse_checkpoint(checkpoint, (str(error).splitlines() or [repr(error)])[0][:80]) from None
    if not whole or any(shapes.get(name) != shape for name, shape in neutral_shapes(model).items()):
        raise refuse_checkpoint(checkpoint, "its tensors are not those of this model")
    return checkpoint


class Bars(TQDMProgressBar):
    """Lightning's bars, on stderr, where they are no output, and gone when the pass is over."""

    def on_train_epoch_start(self, trainer: L.Trainer, *rest: Any) -> None:
        super().on_train_epoch_start(trainer, *rest)
        self.train_progress_bar.set_description(f"epoch {trainer.current_epoch + 1}")  # Lightning's counts from 0

    def init_train_tqdm(self) -> Tqdm:
        return passing(super().init_train_tqdm)

    def init_validation_tqdm(self) -> Tqdm:
        return passing(super().init_validation_tqdm)

    def init_predict_tqdm(self) -> Tqdm:
        return passing(super().init_predict_tqdm)


def passing(init: Callable[[], Tqdm]) -> Tqdm:
    with contextlib.redirect_stdout(sys.stderr):
        bar = init()
    bar.leave = False
    return bar


class Freeze(Callback):
    """Keeps all but the head as it is, BatchNorm's statistics too, in the epochs that the config says."""

    def __init__(self, config: Config):
        self.config = config

    # At each batch, because a run resumed within an epoch begins none, and validation puts modules back into training.
    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any,
                             batch_idx: int) -> None:
        frozen, head = is_frozen(self.config, trainer.current_epoch), head_module(self.config.model.name)
        for name, parameter in pl_module.model.named_parameters():
            parameter.requires_grad_(not frozen or name.startswith(f"{head}."))
        for module in pl_module.model.modules():
            if isinstance(module, _BatchNorm):
                module.train(not frozen)


def build_callbacks(config: Config, recorder: Recorder, classes: tuple[str, ...]) -> list[Callback]:
    """All callbacks of a training, in the order in which they run."""
    train, debug = config.train, config.debug
    average = Average(multi_avg_fn=move_averages(config, recorder.steps)) if train.ema_decay else None
    callbacks = [*([average] if average else []), Record(recorder), SaveBest(config, recorder, classes, average)]
    if train.early_stopping_patience:
        # A loss that is not finite is no improvement, as in Keras.
        callbacks.append(ResumableEarlyStopping(
            train.monitor, mode=DIRECTIONS[train.monitor], min_delta=0.0, patience=train.early_stopping_patience,
            check_on_train_epoch_end=True, check_finite=False))
    if config.model.freeze == "backbone":
        callbacks.append(Freeze(config))
    if sys.stderr.isatty():
        callbacks.append(Bars())
    if debug.profile:
        callbacks.append(Profile(recorder))
    # The last one, so that what the others count is in the checkpoint.
    callbacks.append(SaveLast(recorder))
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
