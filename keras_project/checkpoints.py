"""Writing checkpoints, the best weights and the last state, and going on from a checkpoint at any step."""

import json
import re
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.callbacks import Callback

from keras_project.average import Average
from keras_project.early_stopping import ResumableEarlyStopping
from keras_project.log_names import to_log_name
from keras_project.models import neutral_weights
from keras_project.models.neutral import finalize_layers
from keras_project.multi_worker import in_any_worker
from keras_project.training_rules import unwrap_loss_scale
from shared.config import Config
from shared.errors import UserError
from shared.runs.folder import explain_bad_checkpoint, write_checkpoint
from shared.training.best import Best
from shared.training.recorder import Recorder
from shared.weights.file import read_metadata, read_weights, require_fit, save_weights, write_tensors

METRIC = "metric "  # leads the names of the metrics' variables in a checkpoint

to_numpy = keras.ops.convert_to_numpy  # also where a variable is spread over devices, on which int() and float() fail


class SaveBest(Callback):
    """Writes best.safetensors, in the neutral format, whenever an epoch is the best so far."""

    def __init__(self, config: Config, recorder: Recorder, classes: tuple[str, ...], average: Average | None):
        super().__init__()
        self.config, self.recorder, self.classes, self.average = config, recorder, classes, average
        self.best = Best(config)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if self.best.update(float(logs[to_log_name(self.best.monitor)]), epoch + 1):
            weights = self.average.weights() if self.average else neutral_weights(self.model)
            if self.recorder.run.leader:
                save_weights(self.recorder.run.best_weights, weights, self.config, self.classes)
        self.recorder.best_epoch = self.best.epoch

    def state_dict(self) -> dict[str, Any]:
        return self.best.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best.restore(state_dict)


class SaveLast(Callback):
    """Writes checkpoints/last.safetensors after each epoch, every `train.checkpoint_every_steps` and before a stop: all
    variables of model, optimizer and metrics, and counters.

    Keras' own formats either leave the optimizer out or hold Python code; this one holds nothing but tensors and JSON.
    """

    def __init__(self, recorder: Recorder, keepers: list[Callback], average: Average | None):
        super().__init__()
        self.recorder, self.keepers, self.average = recorder, keepers, average
        self.file = recorder.run.checkpoints / "last.safetensors"
        self.counts: list[np.ndarray] = []  # of the metrics of the epoch that a checkpoint interrupted

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.step = int(to_numpy(self.model.optimizer.iterations))

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        if self.counts:  # `fit` has just reset them
            for variable, count in zip(self.model.metrics_variables, self.counts, strict=True):
                variable.assign(count)
        self.counts = []

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        agree_to_stop(self.model, self.recorder)
        step = int(to_numpy(self.model.optimizer.iterations))
        if step != self.step and self.recorder.checkpoint_due(step):
            self.save(step)
        self.step = step

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        agree_to_stop(self.model, self.recorder)
        self.save(int(to_numpy(self.model.optimizer.iterations)))

    def collect_variables(self, model: keras.Model) -> dict[str, keras.Variable]:
        """All variables that a checkpoint holds, by name, without those of metrics."""
        return collect_variables(model) | (self.average.variables() if self.average else {})

    def save(self, step: int) -> None:
        state = {"step": step, "clock": self.recorder.state(),
                 "keepers": [keeper.state_dict() for keeper in self.keepers]}
        counted = {f"{METRIC}{i}": variable for i, variable in enumerate(self.model.metrics_variables)}
        variables = self.collect_variables(self.model) | counted
        tensors = {name: to_numpy(variable) for name, variable in variables.items()}
        if self.recorder.run.leader:
            write_tensors(self.file, tensors, {"state": json.dumps(state)}, write_checkpoint)
        if self.recorder.stop.signal is not None:
            raise self.recorder.stopped(step, self.recorder.stop.signal)


def agree_to_stop(model: keras.Model, recorder: Recorder) -> None:
    """A signal that one worker got becomes everybody's, so that all stop at the same step."""
    stop = recorder.stop
    if in_any_worker(model.distribute_strategy, stop.signal is not None):
        stop.signal = stop.signal or signal.SIGTERM


def collect_variables(model: keras.Model) -> dict[str, keras.Variable]:
    """All variables of model and optimizer by path, in which the optimizer is called "optimizer".

    Left out are sums of gradients, which are 0 between two steps. What Keras numbers within a process (generators,
    optimizers, variables without a name) is numbered within the model instead, and so are variables of one path.
    """
    optimizer, seen, found = re.escape(unwrap_loss_scale(model.optimizer).name), Counter(), {}
    for variable in [*model.variables, *model.optimizer.variables]:
        if "gradient_accumulator" in variable.name:
            continue
        name = "generator" if variable.name == "seed_generator_state" else re.sub(
            r"^variable(_\d+)?$", "variable", re.sub(f"^{optimizer}/", "optimizer/", variable.path))
        number = seen[name]
        seen[name] += 1
        found[f"{name} {number}" if number or name == "generator" else name] = variable
    return found


def resume(checkpoint: Path | None, model: keras.Model, callbacks: list[Callback]) -> int:
    """Load `checkpoint`, if any, into a compiled model and its callbacks; return the number of finished steps.

    Raises:
        UserError: where the checkpoint is damaged or of another model.
    """
    last = next(callback for callback in callbacks if isinstance(callback, SaveLast))
    if last.average:
        last.average.set_model(model)
    if checkpoint is None:
        if last.recorder.run.resumed:
            last.recorder.rewind(0)
        return 0
    variables = last.collect_variables(model)
    try:
        tensors, state = read_weights(checkpoint), json.loads(read_metadata(checkpoint).get("state", "null"))
        # Metrics have no variables before the first batch, and no paths of their own; they are kept by place.
        counted = {name: tensors.pop(name) for name in list(tensors) if name.startswith(METRIC)}
        require_fit(tensors, {name: tuple(variable.shape) for name, variable in variables.items()}, checkpoint)
        step, clock, kept = state["step"], state["clock"], state["keepers"]
    except (UserError, ValueError, TypeError, KeyError) as error:
        raise explain_bad_checkpoint(checkpoint, str(error)) from None
    for name, variable in variables.items():
        variable.assign(tensors[name])
    finalize_layers(model)
    optimizer = unwrap_loss_scale(model.optimizer)
    # Keras counts the parts of batches here, and the resumed run may split a batch into another number of them.
    optimizer._iterations.assign(step * (optimizer.gradient_accumulation_steps or 1))
    for keeper, counts in zip(last.keepers, kept, strict=True):
        keeper.load_state_dict(counts)
    last.recorder.rewind(step, clock)
    stopping = next((keeper for keeper in last.keepers if isinstance(keeper, ResumableEarlyStopping)), None)
    if stopping and stopping.kept["wait"] >= stopping.patience:
        return last.recorder.steps * last.recorder.config.train.epochs  # it had stopped, nothing is left to train
    if step % last.recorder.steps:
        last.counts = [counted[f"{METRIC}{i}"] for i in range(len(counted))]
    return step


def fit(model: keras.Model, batches_from: Callable[[int], tf.data.Dataset], first_step: int, steps: int, config: Config,
        **arguments: Any) -> None:
    """`model.fit` from `first_step` on. The epoch it lies in is fitted by itself, since it has fewer steps left.

    Raises:
        UserError: where `hardware.steps_per_execution` does not divide the steps that are left of that epoch.
    """
    parts, epochs = config.train.accumulate, config.train.epochs  # what `fit` calls a step is a part of ours
    epoch, done = divmod(first_step, steps)
    if (steps - done) % config.hardware.steps_per_execution:
        raise UserError(f"hardware.steps_per_execution={config.hardware.steps_per_execution} does not divide the "
                        f"{steps - done} steps that are left of epoch {epoch + 1}; resume with 1")
    if done:
        model.test_on_batch(*next(iter(batches_from(first_step))))  # metrics have no variables to restore before
        model.fit(batches_from(first_step), initial_epoch=epoch, epochs=epoch + 1,
                  steps_per_epoch=(steps - done) * parts, shuffle=False, verbose=0, **arguments)
        epoch += 1
    if epoch < epochs and not model.stop_training:
        model.fit(batches_from(epoch * steps), initial_epoch=epoch, epochs=epochs, steps_per_epoch=steps * parts,
                  shuffle=False, verbose=0, **arguments)
