"""Writing the best weights and the last checkpoint, and going on from a checkpoint of any step."""

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

from keras_project.average import Average, WeightCopies
from keras_project.early_stopping import ResumableEarlyStopping
from keras_project.executor import executor
from keras_project.log_names import to_log_name
from keras_project.models import neutral_weights
from keras_project.models.neutral import finalize_layers
from keras_project.training_rules import unwrap_loss_scale
from shared.config import Config
from shared.errors import UserError
from shared.runs.folder import explain_bad_checkpoint, write_checkpoint
from shared.training.best import BestEpoch
from shared.training.recorder import Recorder
from shared.weights.file import read_metadata, read_weights, require_matching_tensors, save_weights, write_tensors

METRIC_PREFIX = "metric "  # of the names that the metrics' variables have in a checkpoint

to_numpy = keras.ops.convert_to_numpy  # for variables too that are distributed over devices, where int() would fail


class BestWeightsWriter(Callback):
    """Writes best.safetensors, a neutral weight file, after each epoch that is the best so far."""

    def __init__(self, config: Config, recorder: Recorder, classes: tuple[str, ...], average: Average | None):
        super().__init__()
        self.config, self.recorder, self.classes, self.average = config, recorder, classes, average
        self.best = BestEpoch(config)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if self.best.update(float(logs[to_log_name(self.best.monitor)]), epoch + 1):
            weights = self.average.get_weights() if self.average else neutral_weights(self.model)
            if self.recorder.run.leader:
                save_weights(self.recorder.run.best_weights, weights, self.config, self.classes)
        self.recorder.best_epoch = self.best.epoch

    def state_dict(self) -> dict[str, Any]:
        return self.best.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best.load_state_dict(state_dict)


class CheckpointWriter(Callback):
    """Writes checkpoints/last.safetensors after each epoch, every `train.checkpoint_every_steps`, and before a stop.

    It holds all variables of model, optimizer and metrics, and the states of the recorder and of the `stateful`
    callbacks. Keras' own formats either leave out the optimizer or hold Python code; this one holds tensors and JSON.
    """

    def __init__(self, recorder: Recorder, stateful: list[Callback], copies: list[WeightCopies]):
        super().__init__()
        self.recorder, self.stateful, self.copies = recorder, stateful, copies
        self.file = recorder.run.checkpoints / "last.safetensors"
        self.metric_values: list[np.ndarray] = []  # of the metrics' variables, where a checkpoint was within an epoch

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.step = int(to_numpy(self.model.optimizer.iterations))

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        if self.metric_values:  # `fit` has just reset the metrics
            for variable, value in zip(self.model.metrics_variables, self.metric_values, strict=True):
                variable.assign(value)
        self.metric_values = []

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        agree_to_stop(self.model, self.recorder)
        step = int(to_numpy(self.model.optimizer.iterations))
        if step != self.step and self.recorder.is_checkpoint_due(step):
            self.save(step)
        self.step = step

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        agree_to_stop(self.model, self.recorder)
        self.save(int(to_numpy(self.model.optimizer.iterations)))

    def collect_variables(self, model: keras.Model) -> dict[str, keras.Variable]:
        """All variables that a checkpoint holds, by name, except for those of metrics."""
        found = collect_variables(model)
        for copies in self.copies:
            found |= copies.variables()
        return found

    def save(self, step: int) -> None:
        """Write the checkpoint. Raises `StoppedError` after it where a signal has asked to stop."""
        state = {"step": step, "clock": self.recorder.read_clock(),
                 "keepers": [callback.state_dict() for callback in self.stateful]}
        metrics = {f"{METRIC_PREFIX}{i}": variable for i, variable in enumerate(self.model.metrics_variables)}
        variables = self.collect_variables(self.model) | metrics
        tensors = {name: to_numpy(variable) for name, variable in variables.items()}
        if self.recorder.run.leader:
            write_tensors(self.file, tensors, {"state": json.dumps(state)}, write_checkpoint)
        if self.recorder.stop.signal is not None:
            raise self.recorder.explain_stop(step, self.recorder.stop.signal)


def agree_to_stop(model: keras.Model, recorder: Recorder) -> None:
    """Let all workers stop at the same step where one of them has received a signal. All have to call this."""
    stop = recorder.stop
    if executor.agree(model, stop.signal is not None):
        stop.signal = stop.signal or signal.SIGTERM


def collect_variables(model: keras.Model) -> dict[str, keras.Variable]:
    """All variables of model and optimizer by their paths, in which the optimizer is called "optimizer".

    It leaves out the sums of gradients, which are 0 between two steps. Keras numbers generators, optimizers and
    variables without a name in the order in which a process makes them. Here the numbers depend on the model alone;
    variables with the same path are numbered too.
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


def load_checkpoint(checkpoint: Path | None, model: keras.Model, callbacks: list[Callback]) -> int:
    """Load a checkpoint, if there is one, into a compiled model and its callbacks; return the number of finished steps.

    Raises:
        UserError: where the checkpoint is damaged or of another model.
    """
    writer = next(callback for callback in callbacks if isinstance(callback, CheckpointWriter))
    recorder = writer.recorder
    for copies in writer.copies:
        copies.set_model(model)
    if checkpoint is None:
        if recorder.run.resumed:
            recorder.rewind(0)
        return 0
    variables = writer.collect_variables(model)
    shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
    try:
        tensors, state = read_weights(checkpoint), json.loads(read_metadata(checkpoint).get("state", "null"))
        # The metrics' variables have no paths that identify them, so a checkpoint numbers them. They do not exist
        # before the first batch, and get their values later.
        metrics = {name: tensors.pop(name) for name in list(tensors) if name.startswith(METRIC_PREFIX)}
        require_matching_tensors(tensors, shapes, checkpoint)
        step, clock, states = state["step"], state["clock"], state["keepers"]
    except (UserError, ValueError, TypeError, KeyError) as error:
        raise explain_bad_checkpoint(checkpoint, str(error)) from None
    for name, variable in variables.items():
        variable.assign(tensors[name])
    finalize_layers(model)
    optimizer = unwrap_loss_scale(model.optimizer)
    # Keras counts the parts of batches here, and the resumed run may split a batch into another number of them.
    optimizer._iterations.assign(step * (optimizer.gradient_accumulation_steps or 1))
    for callback, callback_state in zip(writer.stateful, states, strict=True):
        callback.load_state_dict(callback_state)
    recorder.rewind(step, clock)
    stopping = next((callback for callback in writer.stateful if isinstance(callback, ResumableEarlyStopping)), None)
    if stopping and stopping.kept["wait"] >= stopping.patience:
        return recorder.steps * recorder.config.train.epochs  # early stopping had ended the run: all steps are done
    if step % recorder.steps:
        writer.metric_values = [metrics[f"{METRIC_PREFIX}{i}"] for i in range(len(metrics))]
    return step


def fit_from_step(model: keras.Model, build_batches: Callable[[int], tf.data.Dataset], first_step: int, steps: int,
                  config: Config, **arguments: Any) -> None:
    """Call `model.fit` with `arguments` so that training goes on after `first_step` steps, of `steps` in an epoch.

    `build_batches` returns the training batches from a step on. Where `first_step` is within an epoch, the rest of that
    epoch is trained by a `fit` of its own, since it has fewer steps.

    Raises:
        UserError: where `hardware.steps_per_execution` does not divide the number of steps that are left of that epoch.
    """
    parts, epochs = config.train.accumulate, config.train.epochs  # `fit` counts each part of a batch as a step
    epoch, done = divmod(first_step, steps)
    if epoch < epochs and (steps - done) % config.hardware.steps_per_execution:
        raise UserError(f"hardware.steps_per_execution={config.hardware.steps_per_execution} does not divide the "
                        f"{steps - done} steps that are left of epoch {epoch + 1}; resume with 1")
    if done and epoch < epochs:
        # Makes the metrics' variables, which are to be restored.
        model.test_on_batch(*next(build_batches(first_step).as_numpy_iterator()))
        model.fit(build_batches(first_step), initial_epoch=epoch, epochs=epoch + 1,
                  steps_per_epoch=(steps - done) * parts, shuffle=False, verbose=0, **arguments)
        epoch += 1
    if epoch < epochs and not model.stop_training:
        model.fit(build_batches(epoch * steps), initial_epoch=epoch, epochs=epochs, steps_per_epoch=steps * parts,
                  shuffle=False, verbose=0, **arguments)
