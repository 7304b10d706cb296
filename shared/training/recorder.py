"""What both siblings' callbacks report while a run goes on: the same rows, the same lines, the same clock."""

import json
import math
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from tqdm import tqdm

from shared.config import Config
from shared.errors import StoppedError, UserError, is_out_of_memory, is_process_lost
from shared.machine import hardware
from shared.machine.files import append_line, to_json, write_json, write_whole
from shared.runs.folder import RunFolder
from shared.scores import name_by_split
from shared.training.best import Best
from shared.training.seams import explain_missing_monitor
from shared.training.stopping import StopRequest
from shared.training.trackers import Trackers


class Recorder:
    """Keeps time and rows of a run. A sibling's callback calls it; it knows no framework.

    `steps` is the number of steps in an epoch, `rates` the learning rate of every step, `peak_memory` returns GiB,
    `names` what the images of a batch, counted from 0 over the run, can be found by.
    """

    def __init__(self, run: RunFolder, steps: int, rates: np.ndarray,
                 peak_memory: Callable[[], float] = hardware.peak_memory_gib,
                 names: Callable[[int], list] = lambda step: []):
        self.run, self.steps, self.rates, self.peak_memory = run, steps, rates, peak_memory
        self.config: Config = run.config
        self.names = names
        self.stop = StopRequest()
        self.train_seconds = 0.0  # of training alone: validation and checkpoints do not count
        self.epoch_started: float | None = None
        self.step = self.step_before = 0
        self.carried = 0.0  # seconds of the epoch in progress that were spent before a resume
        self.best_epoch = 0
        self.rows: list[dict[str, float]] = []
        if run.resumed:
            self.rewind(math.inf)  # where nothing is left to train, nobody else will
        self.trackers = Trackers(run)

    def state(self) -> dict[str, float]:
        """The clock, for a checkpoint."""
        now = 0.0 if self.epoch_started is None else time.perf_counter() - self.epoch_started
        return {"train_seconds": self.train_seconds, "epoch_seconds": now}

    def rewind(self, step: float, state: dict[str, float] | None = None) -> None:
        """Forget rows after `step`, from where a resumed run goes on, and set the clock to a checkpoint's."""
        rows = [json.loads(line) for line in self.run.metrics_file.read_text().splitlines() if line.endswith("}")] \
            if self.run.metrics_file.exists() else []
        self.rows = [row for row in rows if row["samples"] <= step * self.config.train.batch_size]
        if self.run.leader:
            write_whole(self.run.metrics_file, lambda file: file.write_text("".join(
                to_json(row) + "\n" for row in self.rows)))
        self.train_seconds = max((row["time/train_s"] for row in self.rows), default=0.0)
        best = Best(self.config)
        for row in self.epochs():
            value = row.get(best.monitor)
            best.update(math.nan if value is None else value, round(row["epoch"]))
        self.best_epoch = best.epoch
        self.step = 0 if math.isinf(step) else int(step)
        if state:
            self.train_seconds, self.carried = state["train_seconds"], state["epoch_seconds"]

    def epoch_begins(self) -> None:
        """At the first training step of an epoch, or the first after a resume within it."""
        self.epoch_started = time.perf_counter() - self.carried
        self.carried = 0.0

    def step_ends(self, step: int, loss: float, gradient_norm: float = 0.0) -> None:
        """After training step `step`, counted from 1 over the run, whose loss was `loss`.

        Raises:
            UserError: where the loss or the gradient is not finite.
        """
        for what, value in (("loss", loss), ("gradient's norm", gradient_norm)):
            if not math.isfinite(value):
                raise UserError(self.explain(what, value, step))
        self.step_before, self.step = self.step, step
        if self.passed(self.config.tracking.log_every_steps) or self.step_before == 0:
            self.write(step, {"train/loss_step": loss, "lr": self.rates[step - 1]})

    def explain(self, what: str, value: float, step: int) -> str:
        """The line that says where `what` was not finite. The images are written to nonfinite.json: those of the batch
        or, where Keras ran several steps at once, of all that it may have been."""
        epoch, rate = (step - 1) // self.steps + 1, float(self.rates[step - 1])
        names = [name for number in range(self.step, step) for name in self.names(number)]
        file = self.run.folder / "nonfinite.json"
        if self.run.leader:
            write_json(file, {"what": what, "value": str(value), "step": step, "epoch": epoch, "lr": rate,
                              "images": names})
        return (f"the {what} is {value} at step {step} (epoch {epoch}, learning rate {rate:g}); lower optimizer.lr, "
                "set train.grad_clip or look with debug.detect_anomaly=true; the batch's images, "
                f"{', '.join(map(str, names[:4]))} ..., are listed in {file}; the last checkpoint before it is in "
                f"{self.run.checkpoints}")

    def training_ends(self) -> None:
        """After the last training step of an epoch, before its validation."""
        self.epoch_seconds = time.perf_counter() - self.epoch_started
        self.train_seconds += self.epoch_seconds
        self.epoch_started = None

    def checkpoint_due(self, step: int) -> bool:
        """Whether to checkpoint after `step`. The end of an epoch is no such step: its own comes after validation."""
        every = self.config.train.checkpoint_every_steps
        return step % self.steps != 0 and (self.stop.signal is not None or (every > 0 and self.passed(every)))

    def passed(self, every: int) -> bool:
        """Whether a multiple of `every` lies among the steps told of last: one, or several that Keras ran at once."""
        return self.step // every > self.step_before // every

    def stopped(self, step: int, number: int) -> StoppedError:
        """What to raise once a checkpoint of `step` is written and signal `number` asked to stop."""
        if not self.run.leader:
            return StoppedError("", number)
        return StoppedError(f"stopped by {signal.Signals(number).name} after step {step}, which is saved; go on with "
                       f"resume={self.run.folder}", number)

    def epoch_ends(self, step: int, metrics: dict[str, float]) -> None:
        """After validation. `metrics` are all that the epoch has, by their names in the dashboard.

        Raises:
            UserError: where the monitored metric is not among them.
        """
        if self.config.train.monitor not in metrics:
            raise explain_missing_monitor(self.config, metrics)
        metrics = dict(sorted(metrics.items(), key=lambda item: rank_metric(item[0])))
        images = self.steps * self.config.train.batch_size
        self.write(step, {**{name: float(value) for name, value in metrics.items()}, "lr": self.rates[step - 1],
                          "perf/images_per_second": images / self.epoch_seconds,
                          "perf/epoch_seconds": self.epoch_seconds,
                          "perf/peak_memory_gib": self.peak_memory()})
        words = [f"epoch {step // self.steps:>{len(str(self.config.train.epochs))}}/{self.config.train.epochs}"]
        words += [f"{name} {value:.4f}" for name, value in metrics.items()]
        words += [f"{images / self.epoch_seconds:,.0f} images/s"]
        if self.run.leader:
            with tqdm.external_write_mode():  # a bar that is still there is wiped out first, and drawn again after
                print("  ".join(words), flush=True)

    def log_more(self, metrics: dict[str, float]) -> None:
        """Numbers that something else than the training itself has logged, such as a framework's own callback."""
        self.write(self.step, metrics)

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Add a row to metrics.jsonl and the trackers."""
        now = self.train_seconds
        if self.epoch_started is not None:
            now += time.perf_counter() - self.epoch_started
        row = {"samples": step * self.config.train.batch_size, "epoch": step / self.steps, "time/train_s": now,
               **metrics}
        self.rows.append(row)
        if self.run.leader:
            append_line(self.run.metrics_file, to_json(row) + "\n")
            self.trackers.log(row)

    def epochs(self) -> list[dict[str, float]]:
        """The rows of whole epochs."""
        return [row for row in self.rows if "perf/epoch_seconds" in row]

    def finish(self, parameters: int, test: dict[str, np.ndarray], scores: list[dict[str, float]]) -> dict[str, Any]:
        """Write predictions and result.json, close the trackers, and return the result.

        `test` holds the best weights' logits (n, K), index and label (n,) of all test images; `scores` are those of the
        validation and of the test images.
        """
        epochs = self.epochs()
        # The first epoch holds compilation and warm-up; where there is no other, it has to do.
        steady = epochs[1:] or epochs
        result = {
            "framework": self.run.framework, "group": self.config.group, "seed": self.config.seed,
            **name_by_split(*scores),
            "best_epoch": self.best_epoch, "epochs": len(epochs), "parameters": parameters,
            "perf/images_per_second": float(np.median([row["perf/images_per_second"] for row in steady])),
            "perf/epoch_seconds": float(np.median([row["perf/epoch_seconds"] for row in steady])),
            "perf/first_epoch_seconds": epochs[0]["perf/epoch_seconds"],
            "perf/peak_memory_gib": self.peak_memory(), "time/train_s": self.train_seconds}
        self.run.finish(**test, result=result)
        self.trackers.finish({name: value for name, value in result.items() if "/" in name or name == "parameters"},
                            status=0)
        if self.run.leader:
            print(f"test/accuracy {result['test/accuracy']:.4f}  test/loss {result['test/loss']:.4f}  (best epoch "
                  f"{self.best_epoch}, {len(test['label']):,} images)\nrun folder: {self.run.folder}", flush=True)
        return result

    def __enter__(self) -> "Recorder":
        self.stop.install()
        return self

    def lighter(self) -> str:
        """Which batch did not fit into memory, that of the training step in progress or one that is evaluated, and how
        to make it smaller."""
        key, split, train = "eval_batch_size", "", self.config.train
        if self.epoch_started is not None:
            key, batch = "batch_size", train.batch_size
            parts = next((parts for parts in range(train.accumulate + 1, batch + 1) if batch % parts == 0), None)
            split = f"split it with train.accumulate={parts}, or " if parts else ""
        size = getattr(train, key)
        return f"train.{key}={size} did not fit into memory; {split}try {max(1, size // 2)}"

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        self.stop.restore()
        if error is None:
            return
        self.trackers.finish(None, status=1)
        if is_out_of_memory(error):
            raise UserError(f"{self.lighter()}, a smaller dataset.image_size or hardware.precision=bf16") from None
        if is_process_lost(error):
            if self.stop.signal is not None:
                raise StoppedError("stopped with the leading process, which has saved", self.stop.signal) from None
            raise UserError("another process of this run ended, see its message; go on from the last checkpoint with "
                            f"resume={self.run.folder}") from None


def rank_metric(name: str) -> tuple[int, int, str]:
    """Where a metric stands in a row: training before validation before the rest, loss and accuracy before others."""
    split, _, metric = name.partition("/")
    first = {"loss": 0, "accuracy": 1}
    return {"train": 0, "val": 1}.get(split, 2), first.get(metric, 2), name
