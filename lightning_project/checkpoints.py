"""Writing the best weights and the last checkpoint, and validating a checkpoint before a run goes on from it."""

import signal
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import nn

from lightning_project.average import Average
from lightning_project.models import neutral_shapes
from shared.config import Config
from shared.runs.folder import explain_bad_checkpoint, write_checkpoint
from shared.training.best import BestEpoch
from shared.training.recorder import Recorder
from shared.weights.file import save_weights


class BestWeightsWriter(Checkpoint):
    """Writes best.safetensors, a neutral weight file, after each epoch that is the best so far."""

    state_key = "SaveBest"  # in checkpoints, so that those of older runs can be read

    def __init__(self, config: Config, recorder: Recorder, classes: tuple[str, ...], average: Average | None):
        self.config, self.recorder, self.classes, self.average = config, recorder, classes, average
        self.best = BestEpoch(config)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.best.update(float(trainer.callback_metrics[self.best.monitor]), trainer.current_epoch + 1):
            state = trainer.strategy.lightning_module_state_dict()  # whole, even where processes hold parts of it
            if self.recorder.run.leader:
                weights = self.average.get_weights() if self.average else \
                    {name: state[f"model.{name}"].cpu().numpy() for name in neutral_shapes(pl_module.model)}
                save_weights(self.recorder.run.best_weights, weights, self.config, self.classes)
        self.recorder.best_epoch = self.best.epoch

    def state_dict(self) -> dict[str, Any]:
        return self.best.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best.load_state_dict(state_dict)


class CheckpointWriter(Checkpoint):
    """Writes checkpoints/last.ckpt after each epoch, every `train.checkpoint_every_steps` steps, and before a stop.

    It is a Checkpoint, because Lightning calls no other callback after early stopping, whose count has to be saved too.
    """

    def __init__(self, recorder: Recorder):
        self.recorder, self.file = recorder, recorder.run.checkpoints / "last.ckpt"
        self.step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.step = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any,
                           batch_idx: int) -> None:
        agree_to_stop(trainer, self.recorder)
        if trainer.global_step != self.step and self.recorder.is_checkpoint_due(trainer.global_step):
            self.save(trainer)
        self.step = trainer.global_step

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        agree_to_stop(trainer, self.recorder)
        self.save(trainer)

    def save(self, trainer: L.Trainer) -> None:
        """Write the checkpoint. Raises `StoppedError` after it where a signal has asked to stop."""
        write_checkpoint(self.file, lambda path: trainer.save_checkpoint(path, weights_only=False),
                         self.recorder.run.leader)
        if self.recorder.stop.signal is not None:
            raise self.recorder.explain_stop(trainer.global_step, self.recorder.stop.signal)


def agree_to_stop(trainer: L.Trainer, recorder: Recorder) -> None:
    """Let all processes stop at the same step where one of them has received a signal. All have to call this."""
    stop = recorder.stop
    if trainer.world_size > 1 and trainer.strategy.reduce_boolean_decision(stop.signal is not None, all=False):
        stop.signal = stop.signal or signal.SIGTERM


def validate_checkpoint(checkpoint: Path | None, model: nn.Module) -> Path | None:
    """Check that a checkpoint, if there is one, is whole and belongs to `model`, and return it.

    Raises:
        UserError: where it is damaged, holds code, or belongs to another model.
    """
    if checkpoint is None:
        return None
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        shapes = {name.removeprefix("model."): tuple(tensor.shape) for name, tensor in content["state_dict"].items()}
        is_whole = {"loops", "optimizer_states", "lr_schedulers", "callbacks"} <= content.keys()
    except Exception as error:  # a damaged file can make torch.load raise anything
        raise explain_bad_checkpoint(checkpoint, (str(error).splitlines() or [repr(error)])[0][:80]) from None
    if not is_whole or any(shapes.get(name) != shape for name, shape in neutral_shapes(model).items()):
        raise explain_bad_checkpoint(checkpoint, "its tensors are not those of this model")
    return checkpoint
