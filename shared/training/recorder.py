"""The records of a run in progress, which both siblings' callbacks keep through one class."""

import json
import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from shared.config import Config
from shared.data.images import Images
from shared.data.preprocessing import Preprocessing
from shared.errors import StoppedError, UserError, is_out_of_memory, is_process_lost, summarise_error
from shared.machine import hardware
from shared.machine.console import say
from shared.machine.files import append_line, to_json, write_json, write_whole
from shared.runs.folder import RunFolder
from shared.runs.records import Predictions
from shared.scores import name_scores_by_split
from shared.training.best import BestEpoch
from shared.training.examples import Example, collect_examples
from shared.training.seams import explain_missing_monitor
from shared.training.segments import add_segment, describe_change
from shared.training.stopping import StopRequest
from shared.training.trackers import Trackers


class Recorder:
    """Writes the metrics of a run to metrics.jsonl, to the trackers and to the terminal, and measures its time.

    `steps` is the number of training steps in an epoch, and `rates` holds the learning rate of each step of the run.
    `measure_memory` returns the peak memory in GiB. `name_images` returns file names or indices of the images in the
    batch of a step, counted from 0 over the run. Trackers show examples of the `test_images`.
    """

    def __init__(self, run: RunFolder, steps: int, rates: np.ndarray,
                 measure_memory: Callable[[], float] = hardware.measure_peak_memory,
                 name_images: Callable[[int], list] = lambda step: [], test_images: Images | None = None):
        self.run, self.steps, self.rates = run, steps, rates
        self.measure_memory, self.name_images, self.test_images = measure_memory, name_images, test_images
        self.config: Config = run.config
        self.stop = StopRequest()
        self.train_seconds = 0.0  # without validation and checkpoints
        self.epoch_started: float | None = None  # when the epoch's training began; None while nothing trains
        self.step = self.step_before = 0
        self.carried = 0.0  # seconds that the epoch in progress had trained before the run was resumed
        self.best_epoch = 0
        self.rows: list[dict[str, float]] = []
        if run.resumed:
            self.rewind(math.inf)  # no callback does so where nothing is left to train
        self.trackers = Trackers(run)

    def read_clock(self) -> dict[str, float]:
        """Seconds of training in finished epochs and in the one in progress, which a checkpoint keeps for `rewind`."""
        now = 0.0 if self.epoch_started is None else time.perf_counter() - self.epoch_started
        return {"train_seconds": self.train_seconds, "epoch_seconds": now}

    def rewind(self, step: float, clock: dict[str, float] | None = None) -> None:
        """Go back to `step`, after which a resumed run goes on: drop the rows after it and set the `clock`."""
        text = self.run.metrics_file.read_text(encoding="utf-8") if self.run.metrics_file.exists() else ""
        rows = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
        self.rows = [row for row in rows if row["samples"] <= step * self.config.train.batch_size]
        if self.run.leader:
            write_whole(self.run.metrics_file, lambda file: file.write_text("".join(
                to_json(row) + "\n" for row in self.rows), encoding="utf-8"))
        self.train_seconds = max((row["time/train_s"] for row in self.rows), default=0.0)
        best = BestEpoch(self.config)
        for row in self.list_epoch_rows():
            value = row.get(best.monitor)
            best.update(math.nan if value is None else value, round(row["epoch"]))
        self.best_epoch = best.epoch
        self.step = 0 if math.isinf(step) else int(step)
        if clock:
            self.train_seconds, self.carried = clock["train_seconds"], clock["epoch_seconds"]
        if self.run.resumed and not math.isinf(step):
            self.record_segment(self.step)

    def record_segment(self, step: int) -> None:
        """Record in run.json what schedule holds after `step` where it is another than before, and say what changes."""
        if not (self.run.leader and self.run.record):
            return
        segments = add_segment(self.run.record["segments"], self.config, step, self.steps)
        if segments != self.run.record["segments"]:
            for line in describe_change(self.run.record["segments"], segments, str(self.run.folder)):
                say(line)
            self.run.write_segments(segments)

    def begin_epoch(self) -> None:
        """To be called before the first training step of an epoch, or before the first after a resume within it."""
        self.epoch_started = time.perf_counter() - self.carried
        self.carried = 0.0

    def end_step(self, step: int, loss: float, gradient_norm: float = 0.0) -> None:
        """To be called after training step `step`, counted from 1 over the run, with its loss and gradient norm.

        Raises:
            UserError: where one of them is not finite.
        """
        for what, value in (("loss", loss), ("gradient's norm", gradient_norm)):
            if not math.isfinite(value):
                raise UserError(self.report_nonfinite(what, value, step))
        self.step_before, self.step = self.step, step
        if self.has_passed_multiple(self.config.tracking.log_every_steps) or self.step_before == 0:
            self.write_row(step, {"train/loss_step": loss, "lr": self.rates[step - 1]})

    def report_nonfinite(self, what: str, value: float, step: int) -> str:
        """Write nonfinite.json, and return the line that says at which step `what` was not finite.

        The file lists the images of the batch. Keras may have run several steps at once, and any of them may have been
        the first that was not finite; then it lists the images of all of them.
        """
        epoch, rate = (step - 1) // self.steps + 1, float(self.rates[step - 1])
        names = [name for number in range(self.step, step) for name in self.name_images(number)]
        file = self.run.folder / "nonfinite.json"
        if self.run.leader:
            write_json(file, {"what": what, "value": str(value), "step": step, "epoch": epoch, "lr": rate,
                              "images": names})
        return (f"the {what} is {value} at step {step} (epoch {epoch}, learning rate {rate:g}); lower optimizer.lr, "
                "set train.grad_clip or look with debug.detect_anomaly=true; the batch's images, "
                f"{', '.join(map(str, names[:4]))} ..., are listed in {file}; the last checkpoint before it is in "
                f"{self.run.checkpoints}")

    def end_training_pass(self) -> None:
        """To be called after the last training step of an epoch, before its validation."""
        self.epoch_seconds = time.perf_counter() - self.epoch_started
        self.train_seconds += self.epoch_seconds
        self.epoch_started = None

    def is_checkpoint_due(self, step: int) -> bool:
        """Whether to write a checkpoint after `step`. After the last step of an epoch none is due, since one is written
        after validation anyway."""
        every = self.config.train.checkpoint_every_steps
        asked = self.stop.signal is not None or (every > 0 and self.has_passed_multiple(every))
        return asked and step % self.steps != 0

    def has_passed_multiple(self, every: int) -> bool:
        """Whether a multiple of `every` is among the steps that `end_step` was last called for: one, or several that
        Keras ran at once."""
        return self.step // every > self.step_before // every

    def explain_stop(self, step: int, number: int) -> StoppedError:
        """What to raise when signal `number` has asked to stop and the state after `step` is saved."""
        if not self.run.leader:
            return StoppedError("", number)
        return StoppedError(f"stopped by {signal.Signals(number).name} after step {step}, which is saved; go on with "
                            f"resume={self.run.folder}", number)

    def end_epoch(self, step: int, metrics: dict[str, float]) -> None:
        """To be called after validation, with all metrics of the epoch: train/NAME and val/NAME.

        Raises:
            UserError: where the monitored metric is not among them.
        """
        if self.config.train.monitor not in metrics:
            raise explain_missing_monitor(self.config, metrics)
        metrics = dict(sorted(metrics.items(), key=lambda item: rank_metric(item[0])))
        images = self.steps * self.config.train.batch_size
        self.write_row(step, {**{name: float(value) for name, value in metrics.items()}, "lr": self.rates[step - 1],
                          "perf/images_per_second": images / self.epoch_seconds,
                          "perf/epoch_seconds": self.epoch_seconds,
                          "perf/peak_memory_gib": self.measure_memory()})
        words = [f"epoch {step // self.steps:>{len(str(self.config.train.epochs))}}/{self.config.train.epochs}"]
        words += [f"{name} {value:.4f}" for name, value in metrics.items()]
        words += [f"{images / self.epoch_seconds:,.0f} images/s"]
        if self.run.leader:
            with tqdm.external_write_mode():  # a progress bar is cleared before the line and drawn again after it
                print("  ".join(words), flush=True)

    def log_metrics(self, metrics: dict[str, float]) -> None:
        """Write a row of `metrics` from another source than the training step, such as a callback of the framework."""
        self.write_row(self.step, metrics)

    def write_row(self, step: int, metrics: dict[str, float]) -> None:
        """Add `metrics` as a row to metrics.jsonl and to the trackers, with the axes that every row has."""
        now = self.train_seconds
        if self.epoch_started is not None:
            now += time.perf_counter() - self.epoch_started
        row = {"samples": step * self.config.train.batch_size, "epoch": step / self.steps, "time/train_s": now,
               **metrics}
        self.run.require_hold()
        self.rows.append(row)
        if self.run.leader:
            append_line(self.run.metrics_file, to_json(row) + "\n")
            self.trackers.log(row)

    def list_epoch_rows(self) -> list[dict[str, float]]:
        """The rows that `end_epoch` wrote."""
        return [row for row in self.rows if "perf/epoch_seconds" in row]

    def finish(self, parameters: int, val: dict[str, np.ndarray], test: dict[str, np.ndarray],
               scores: list[dict[str, float]]) -> dict[str, Any]:
        """Write predictions, result.json and all scores, close the trackers, and return the result.

        `parameters` is the number of the model's parameters. `val` and `test` hold logits (n, K), index (n,) and label
        (n,) of all validation and all test images, with the best weights; `scores` are those of both.
        """
        epochs = self.list_epoch_rows()
        if self.run.resumed:
            self.record_segment(len(epochs) * self.steps)  # nobody has, where no epoch was left to train
        # The first epoch includes compilation, so it counts only where there is no other.
        steady = epochs[1:] or epochs
        result = {
            "framework": self.run.framework, "group": self.config.group, "seed": self.config.seed,
            **name_scores_by_split(*scores),
            "best_epoch": self.best_epoch, "epochs": len(epochs), "parameters": parameters,
            "perf/images_per_second": float(np.median([row["perf/images_per_second"] for row in steady])),
            "perf/epoch_seconds": float(np.median([row["perf/epoch_seconds"] for row in steady])),
            "perf/first_epoch_seconds": epochs[0]["perf/epoch_seconds"],
            "perf/peak_memory_gib": self.measure_memory(), "time/train_s": self.train_seconds}
        self.run.finish(val, test, result)
        told = {name: value for name, value in result.items() if "/" in name or name == "parameters"}
        if self.run.leader:
            found, pictures = self.write_scores(val, test)
            self.trackers.finish({**found, **told}, status=0, pictures=pictures,
                                 collect_examples=lambda: self.collect_examples(test))
            print(f"test/accuracy {result['test/accuracy']:.4f}  test/loss {result['test/loss']:.4f}  (best epoch "
                  f"{self.best_epoch}, {len(test['label']):,} images)\nrun folder: {self.run.folder}", flush=True)
        return result

    def write_scores(self, val: dict[str, np.ndarray],
                     test: dict[str, np.ndarray]) -> tuple[dict[str, float], list[Path]]:
        """Write scores.json and what belongs to it; return the scores as test/NAME, and the pictures.

        The run is finished without them, so that whatever fails here is told in a line.
        """
        from shared.scores.files import write_summary  # here, because scikit-learn and matplotlib take a second or two
        from shared.scores.summary import summarise_predictions

        found, files = {}, []
        try:
            summary = summarise_predictions(Predictions(**test), Predictions(**val), self.run.record.get("classes", ()))
            found = {f"test/{name}": value for name, value in summary.scores.items() if value is not None}
            files = write_summary(summary, self.run.folder)
        except Exception as error:
            reason = error if isinstance(error, UserError) else summarise_error(error)
            say(f"scores.json and its pictures are missing or not whole: {reason}; the training has finished without")
        return found, [file for file in files if file.suffix == ".png"]

    def collect_examples(self, test: dict[str, np.ndarray]) -> list[Example]:
        """Some of the test images, with the answers that `test` holds."""
        if self.test_images is None:
            return []
        return collect_examples(Predictions(**test), self.test_images, Preprocessing.of_config(self.config),
                                self.run.record["classes"], self.config.tracking.examples)

    def __enter__(self) -> "Recorder":
        self.stop.install_handlers()
        return self

    def suggest_smaller_batch(self) -> str:
        """Which batch did not fit into memory, and how to make it smaller: a batch of training where an epoch is in
        progress, otherwise one of evaluation."""
        key, split, train = "eval_batch_size", "", self.config.train
        if self.epoch_started is not None:
            key, batch = "batch_size", train.batch_size
            parts = next((parts for parts in range(train.accumulate + 1, batch + 1) if batch % parts == 0), None)
            split = f"split it with train.accumulate={parts}, or " if parts else ""
        size = getattr(train, key)
        return f"train.{key}={size} did not fit into memory; {split}try {max(1, size // 2)}"

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        self.stop.restore_handlers()
        self.run.release()
        if error is None:
            return
        self.trackers.finish(None, status=1)
        if is_out_of_memory(error):
            advice = self.suggest_smaller_batch()
            raise UserError(f"{advice}, a smaller dataset.image_size or hardware.precision=bf16") from None
        if is_process_lost(error):
            if self.stop.signal is not None:
                raise StoppedError("stopped with the leading process, which has saved", self.stop.signal) from None
            raise UserError("another process of this run ended, see its message; go on from the last checkpoint with "
                            f"resume={self.run.folder}") from None


def rank_metric(name: str) -> tuple[int, int, str]:
    """A key to sort metrics by: training first, then validation, then others; in each, loss and accuracy first."""
    split, _, metric = name.partition("/")
    first = {"loss": 0, "accuracy": 1}
    return {"train": 0, "val": 1}.get(split, 2), first.get(metric, 2), name
