"""The callbacks of a training: `build_callbacks` lists them in the order in which they run."""

import sys

import keras
import numpy as np

from keras_project.average import Average, Lookahead
from keras_project.checkpoints import BestWeightsWriter, CheckpointWriter, to_numpy
from keras_project.early_stopping import ResumableEarlyStopping
from keras_project.executor import executor
from keras_project.log_names import LAST_LOSS, to_dashboard_name, to_log_name
from keras_project.models import find_entry
from keras_project.progress import ProgressBars
from keras_project.training_rules import unwrap_loss_scale
from shared.config import Config, find_direction
from shared.training.recorder import Recorder
from shared.training.schedule import is_frozen


def build_callbacks(config: Config, recorder: Recorder, classes: tuple[str, ...]) -> list[keras.callbacks.Callback]:
    """All callbacks of a training, in the order in which they run."""
    train, debug = config.train, config.debug
    average = Average(config, recorder.steps) if train.ema_decay else None
    best = BestWeightsWriter(config, recorder, classes, average)
    callbacks: list[keras.callbacks.Callback] = [
        # Your own callbacks, one a line. What they add to `logs` at the end of an epoch is recorded too.
    ]
    # The average is of what lookahead leaves.
    copies = [*([Lookahead(config, recorder.steps)] if train.lookahead_every else []), *([average] if average else [])]
    callbacks = [*(kind() for kind in executor.FIRST_CALLBACKS), *callbacks, *copies, RecorderCallback(recorder), best]
    stateful = [best]
    if train.early_stopping_patience:
        stopping = ResumableEarlyStopping(to_log_name(train.monitor), mode=find_direction(config), min_delta=0.0,
                                          patience=train.early_stopping_patience)
        callbacks.append(stopping)
        stateful.append(stopping)
    if config.model.freeze == "backbone":
        callbacks.append(BackboneFreezer(config))
    if sys.stderr.isatty():
        callbacks.insert(0, ProgressBars(recorder.steps * train.accumulate))
    if debug.profile:
        callbacks.append(Profiler(recorder))
    # CheckpointWriter is the last, so that it saves the others' state.
    callbacks.append(CheckpointWriter(recorder, stateful, copies))
    return callbacks


class RecorderCallback(keras.callbacks.Callback):
    """Passes the loss of each step and the metrics of each epoch to the recorder."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self.recorder = recorder

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.step = int(to_numpy(self.model.optimizer.iterations))
        self.losses: list[float] = []  # of the parts of the batch in progress

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.recorder.begin_epoch()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.losses.append(float(logs[LAST_LOSS]))
        step = int(to_numpy(self.model.optimizer.iterations))  # with steps_per_execution, several more than before
        if step != self.step:  # this was the last part of the batch
            norm = getattr(unwrap_loss_scale(self.model.optimizer), "gradient_norm", 0.0)  # an optimizer may have none
            self.recorder.end_step(step, float(np.mean(self.losses)), float(to_numpy(norm)))
            self.step, self.losses = step, []

    def on_test_begin(self, logs: dict | None = None) -> None:
        self.recorder.end_training_pass()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.recorder.end_epoch(self.step, {ours: float(value) for name, value in logs.items()
                                            if (ours := to_dashboard_name(name))})


class BackboneFreezer(keras.callbacks.Callback):
    """Freezes all parameters but those of the head, and BatchNorm's statistics, in the epochs that the config names."""

    def __init__(self, config: Config):
        super().__init__()
        self.config, self.frozen = config, None

    def on_train_begin(self, logs: dict | None = None) -> None:
        if self.frozen is None:
            self.fixed = {layer.name for layer in self.model.layers if layer.weights and not layer.trainable}

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        frozen, head = is_frozen(self.config, epoch), find_entry(self.config.model.name).head
        for layer in self.model.layers:
            if layer.name not in self.fixed:  # a layer that never trains stays as its model has it
                layer.trainable = not frozen or layer.name == head
        if frozen != self.frozen:
            self.frozen = frozen
            self.model.make_train_function(force=True)  # the old one was traced for other trainable variables


class Profiler(keras.callbacks.Callback):
    """Profiles the second epoch, or the only one, and writes the folder `profile`, a trace for TensorBoard."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self.recorder, self.running = recorder, False

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        # Of several processes one, since they would write the same files.
        if self.recorder.run.leader and epoch == min(1, self.params["epochs"] - 1):
            executor.start_profile(str(self.recorder.run.folder / "profile"))
            self.running = True

    def on_test_begin(self, logs: dict | None = None) -> None:
        if self.running:
            executor.stop_profile()
            self.running = False
