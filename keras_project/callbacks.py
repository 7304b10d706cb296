"""What happens around training: records, checkpoints, early stopping, progress."""

import json
import math
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.callbacks import Callback, EarlyStopping
from tqdm import tqdm

from keras_project.models import neutral_weights
from keras_project.multi_worker import in_any_worker
from keras_project.training_rules import unwrap_loss_scale
from shared.best import DIRECTIONS, Best
from shared.config import Config
from shared.errors import UserError
from shared.models import head_module
from shared.recorder import Recorder
from shared.runs import refuse_checkpoint, write_checkpoint
from shared.schedule import average_decays, is_frozen
from shared.weights import Weights, read, read_metadata, refuse_misfit, save, write_tensors

# Keras' names of the metrics and ours. Validation's loss has smoothed targets, its cross-entropy has not.
EPOCH_METRICS = {"train/loss": "loss", "train/accuracy": "accuracy", "val/loss": "val_cross_entropy",
                 "val/accuracy": "val_accuracy"}


METRIC = "metric "  # leads the names of the metrics' variables in a checkpoint


to_numpy = keras.ops.convert_to_numpy  # also where a variable is spread over devices, on which int() and float() fail


class Record(Callback):
    """Hands every step's loss and every epoch's metrics to the recorder."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self.recorder = recorder

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.step = int(to_numpy(self.model.optimizer.iterations))
        self.losses: list[float] = []  # of the parts of the batch in progress

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.recorder.epoch_begins()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.losses.append(float(logs["last_loss"]))
        step = int(to_numpy(self.model.optimizer.iterations))  # several steps on, with steps_per_execution
        if step != self.step:  # that was the batch's last part
            norm = getattr(unwrap_loss_scale(self.model.optimizer), "gradient_norm", 0.0)  # an optimizer may have none
            self.recorder.step_ends(step, float(np.mean(self.losses)), float(to_numpy(norm)))
            self.step, self.losses = step, []

    def on_test_begin(self, logs: dict | None = None) -> None:
        self.recorder.training_ends()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.recorder.epoch_ends(self.step, {ours: float(logs[name]) for ours, name in EPOCH_METRICS.items()})


class Average(Callback):
    """Keeps an average of all weights, `train.ema_decay`, and puts it in their place during validation.

    After each step, average += (1 - decay) (weight - average). Keras' own `use_ema` leaves BatchNorm's statistics out,
    counts each part of an accumulated batch as a step, and starts frozen weights at 0
    (keras/src/optimizers/base_optimizer.py).
    """

    def __init__(self, config: Config, steps: int):
        super().__init__()
        self.shares = 1 - average_decays(config, steps)
        self.averaged: list[keras.Variable] = []

    def set_model(self, model: keras.Model) -> None:
        """Start the averages at the model's weights. `fit` calls this, and `resume` before it loads a checkpoint."""
        super().set_model(model)
        if self.averaged:
            return
        self.averaged = [one for one in model.variables if keras.backend.is_float_dtype(one.dtype)]
        with model.distribute_strategy.scope():
            self.averages = [keras.Variable(to_numpy(one), dtype=one.dtype, trainable=False) for one in self.averaged]
        self.move = tf.function(self.move_averages)

    def variables(self) -> dict[str, keras.Variable]:
        """The averages by the names that they have in a checkpoint."""
        return {f"optimizer/{variable.path.replace('/', '_')}_average": average
                for variable, average in zip(self.averaged, self.averages, strict=True)}

    def move_averages(self, share: tf.Tensor) -> None:
        strategy = self.model.distribute_strategy

        def move(average: tf.Variable, weight: tf.Variable, share: tf.Tensor) -> None:
            average.assign_add(tf.cast(share, average.dtype) * (weight - average))
        for variable, average in zip(self.averaged, self.averages, strict=True):
            strategy.extended.update(average.value, move, args=(variable.value, share), group=False)

    def swap(self) -> None:
        """Exchange the values of weights and averages."""
        for variable, average in zip(self.averaged, self.averages, strict=True):
            value = to_numpy(variable)
            variable.assign(to_numpy(average))
            average.assign(value)

    def weights(self) -> Weights:
        self.swap()
        weights = neutral_weights(self.model)
        self.swap()
        return weights

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.step = int(to_numpy(self.model.optimizer.iterations))

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        step = int(to_numpy(self.model.optimizer.iterations))
        if step != self.step:  # that was the batch's last part
            with self.model.distribute_strategy.scope():
                self.move(tf.constant(self.shares[step - 1]))
        self.step = step

    def on_test_begin(self, logs: dict | None = None) -> None:
        self.swap()

    def on_test_end(self, logs: dict | None = None) -> None:
        self.swap()


class SaveBest(Callback):
    """Writes best.safetensors, in the neutral format, whenever an epoch is the best so far."""

    def __init__(self, config: Config, recorder: Recorder, classes: tuple[str, ...], average: Average | None):
        super().__init__()
        self.config, self.recorder, self.classes, self.average = config, recorder, classes, average
        self.best = Best(config.train.monitor)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if self.best.update(float(logs[EPOCH_METRICS[self.best.monitor]]), epoch + 1):
            weights = self.average.weights() if self.average else neutral_weights(self.model)
            if self.recorder.run.leader:
                save(self.recorder.run.best_weights, weights, self.config, self.classes)
        self.recorder.best_epoch = self.best.epoch

    def state_dict(self) -> dict[str, Any]:
        return self.best.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best.restore(state_dict)


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

    def variables(self, model: keras.Model) -> dict[str, keras.Variable]:
        """All variables that a checkpoint holds, by name."""
        return variables_of(model) | (self.average.variables() if self.average else {})

    def save(self, step: int) -> None:
        state = {"step": step, "clock": self.recorder.state(),
                 "keepers": [keeper.state_dict() for keeper in self.keepers]}
        counted = {f"{METRIC}{i}": variable for i, variable in enumerate(self.model.metrics_variables)}
        tensors = {name: to_numpy(variable) for name, variable in (self.variables(self.model) | counted).items()}
        if self.recorder.run.leader:
            write_tensors(self.file, tensors, {"state": json.dumps(state)}, write_checkpoint)
        if self.recorder.stop.signal is not None:
            raise self.recorder.stopped(step, self.recorder.stop.signal)


def agree_to_stop(model: keras.Model, recorder: Recorder) -> None:
    """A signal that one worker got becomes everybody's, so that all stop at the same step."""
    stop = recorder.stop
    if in_any_worker(model.distribute_strategy, stop.signal is not None):
        stop.signal = stop.signal or signal.SIGTERM


def variables_of(model: keras.Model) -> dict[str, keras.Variable]:
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
    variables = last.variables(model)
    try:
        tensors, state = read(checkpoint), json.loads(read_metadata(checkpoint).get("state", "null"))
        # Metrics have no variables before the first batch, and no paths of their own; they are kept by place.
        counted = {name: tensors.pop(name) for name in list(tensors) if name.startswith(METRIC)}
        refuse_misfit(tensors, {name: tuple(variable.shape) for name, variable in variables.items()}, checkpoint)
        step, clock, kept = state["step"], state["clock"], state["keepers"]
    except (UserError, ValueError, TypeError, KeyError) as error:
        raise refuse_checkpoint(checkpoint, str(error)) from None
    for name, variable in variables.items():
        variable.assign(tensors[name])
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


class Progress(Callback):
    """A bar for each pass over the data, gone when the pass is over."""

    def __init__(self, steps: int):
        super().__init__()
        self.steps, self.bar = steps, None

    def start(self, name: str, total: int | None) -> None:
        self.bar = tqdm(total=total, desc=name, unit="batch", leave=False)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.start(f"epoch {epoch + 1}", self.steps)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.bar.set_postfix(loss=f"{float(logs['loss']):.4f}", refresh=False)
        self.bar.update(batch + 1 - self.bar.n)

    def on_test_begin(self, logs: dict | None = None) -> None:
        self.bar.close()
        self.start("validation", None)

    def on_test_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.bar.update()

    def on_test_end(self, logs: dict | None = None) -> None:
        self.bar.close()

    def on_predict_begin(self, logs: dict | None = None) -> None:
        self.start("predict", None)

    def on_predict_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.bar.update()

    def on_predict_end(self, logs: dict | None = None) -> None:
        self.bar.close()


class Freeze(Callback):
    """Keeps all but the head as it is, BatchNorm's statistics too, in the epochs that the config says."""

    def __init__(self, config: Config):
        super().__init__()
        self.config, self.frozen = config, None

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        frozen, head = is_frozen(self.config, epoch), head_module(self.config.model.name)
        for layer in self.model.layers:
            layer.trainable = not frozen or layer.name == head
        if frozen != self.frozen:
            self.frozen = frozen
            self.model.make_train_function(force=True)  # traced before, with other trainable variables


def build_callbacks(config: Config, recorder: Recorder, classes: tuple[str, ...]) -> list[Callback]:
    """All callbacks of a training, in the order in which they run."""
    train, debug = config.train, config.debug
    average = Average(config, recorder.steps) if train.ema_decay else None
    best = SaveBest(config, recorder, classes, average)
    callbacks, keepers = [*([average] if average else []), Record(recorder), best], [best]
    if train.early_stopping_patience:
        stopping = ResumableEarlyStopping(EPOCH_METRICS[train.monitor], mode=DIRECTIONS[train.monitor], min_delta=0.0,
                                          patience=train.early_stopping_patience)
        callbacks.append(stopping)
        keepers.append(stopping)
    if config.model.freeze == "backbone":
        callbacks.append(Freeze(config))
    if sys.stderr.isatty():
        callbacks.insert(0, Progress(recorder.steps * train.accumulate))
    if debug.profile:
        callbacks.append(Profile(recorder))
    # The last one, so that what the others count is in the checkpoint.
    callbacks.append(SaveLast(recorder, keepers, average))
    return callbacks


class Profile(Callback):
    """Profiles the second epoch, or the first where there is only one, into a trace for TensorBoard."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self.recorder, self.running = recorder, False

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        if epoch == min(1, self.params["epochs"] - 1):
            tf.profiler.experimental.start(str(self.recorder.run.folder / "profile"))
            self.running = True

    def on_test_begin(self, logs: dict | None = None) -> None:
        if self.running:
            tf.profiler.experimental.stop()
            self.running = False
