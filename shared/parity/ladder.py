"""What is compared on each rung between two answers to the same task, and how close they have to be."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from shared.parity.request import MARKS, Arrays, Task

# Largest absolute differences, in float64. Gradients and learning rates are relative to their own largest value.
PIXELS = 1e-6
LOGITS = 1e-8
GRADIENTS = 1e-8
SMALLEST_GRADIENT = 1e-4  # of the largest of all: smaller ones are relative to this
RATES = 1e-12
LOSS_UP_TO_STEP = dict(zip(MARKS, (1e-12, 1e-10, 1e-9), strict=True))
WEIGHTS = 1e-9
LOGITS_AFTER_FIT = 1e-8
EPOCH_METRICS = 1e-9
SCORES = 1e-6
LOGITS_FP32 = 1e-4

# In less than float64 a difference grows about tenfold every two steps of the quick start, from whatever the first
# rounding was, until it is as large as chance makes it. While it grows, one run tells its size to an order of magnitude
# only, and the siblings' convolutions differ by more than thread count changes, which alters nothing in operations too
# small to share out. Once it is grown, the siblings differ like any two such runs, some of
# which are a few times as far apart as others.
MARGIN, MARGIN_GROWN = 10.0, 4.0
MEASURED = (4, 5, 7, 8)  # the rungs that this concerns


@dataclass(frozen=True)
class Answer:
    """What a sibling left for a task: arrays and, of a fit, a run folder."""

    label: str  # Lightning or Keras, as it is called in the report
    folder: Path
    name: str

    @cached_property
    def arrays(self) -> Arrays:
        with np.load(self.folder / f"{self.name}.npz") as file:
            return dict(file)

    @cached_property
    def run(self) -> Path:
        return next((self.folder / "runs" / self.name).glob("*/*/result.json")).parent

    @cached_property
    def rows(self) -> list[dict[str, float]]:
        return [json.loads(line) for line in (self.run / "metrics.jsonl").read_text().splitlines()]


@dataclass(frozen=True)
class Finding:
    """One comparison. `where` names the tensor, step or sample that differs most, with both values."""

    rung: int
    what: str
    figure: float
    tolerance: float
    where: str = ""
    threads: float | None = None   # the same figure between Lightning and itself under another thread count
    rounding: float | None = None  # and between Lightning and itself in float64

    @property
    def passes(self) -> bool:
        return self.figure <= self.tolerance  # false for NaN

    @property
    def strain(self) -> float:
        """Share of the tolerance that is used up."""
        return 0.0 if self.figure == 0 else self.figure / self.tolerance if self.tolerance else math.inf


def compare_answers(task: Task, ours: Answer, theirs: Answer) -> list[Finding]:
    """All comparisons of a task, in an order that does not depend on the answers."""
    return list(COMPARISONS[task.kind](task, ours, theirs))


def against_itself(findings: list[Finding], threads: list[Finding], rounding: list[Finding],
                   precision: str) -> list[Finding]:
    """`findings` in less than float64, with tolerances measured in the same run.

    `threads` holds the same comparisons between Lightning and itself under another thread count, `rounding` between
    Lightning and itself in float64. The tolerance is a margin times the larger, taken over all cases of a kind: the
    optimizers of a fit, the stems of a gradient. For logits in float32 it is LOGITS_FP32, or a margin times the larger
    of that case.
    """
    yards: dict[tuple[int, str], float] = {}
    for finding in (*threads, *rounding):
        yards[kind_of(finding)] = max(yards.get(kind_of(finding), 0.0), finding.figure)
    judged = []
    for finding, drift, error in zip(findings, threads, rounding, strict=True):
        if finding.rung in MEASURED:
            tolerance, own = margin_of(finding) * yards[kind_of(finding)], max(drift.figure, error.figure)
            # BatchNorm over the few values of a deep model takes Lightning further from itself than the limits below.
            if finding.rung == 4 and precision == "fp32":
                tolerance = max(LOGITS_FP32, MARGIN_GROWN * own)
            if finding.rung == 5:  # relative: further apart than its own size, a gradient points elsewhere
                tolerance = min(tolerance, max(1.0, MARGIN_GROWN * own))
            finding = replace(finding, tolerance=tolerance, threads=drift.figure, rounding=error.figure)
        judged.append(finding)
    return judged


def margin_of(finding: Finding) -> float:
    is_grown = finding.rung == 8 or f"step {MARKS[-1]}," in finding.what
    return MARGIN_GROWN if is_grown else MARGIN


def kind_of(finding: Finding) -> tuple[int, str]:
    # A loss is one number, whose rounding may happen to be nothing: it shares the gradients' yardstick.
    return finding.rung, "" if finding.rung == 5 else finding.what.rpartition(", ")[0]


def compare_raw(task: Task, ours: Answer, theirs: Answer) -> Iterator[Finding]:
    names = {"split": [f"{split} {part}" for split in ("train", "val", "test") for part in ("samples", "labels")],
             "order": ["index"], "bytes": ["bytes"], "targets": ["target"]}
    for what, parts in names.items():
        yield worst(1, what, 0.0, (unequal(part, ours, theirs) for part in parts))


def compare_pixels(task: Task, ours: Answer, theirs: Answer) -> Iterator[Finding]:
    for kind in ("images", "targets"):
        for phase, splits in (("training", [f"train epoch {epoch + 1}" for epoch in range(task.config.train.epochs)]),
                              ("evaluation", ["val", "test"])):
            yield worst(2, f"{phase} {kind}, {task.name}", PIXELS,
                        (apart(f"{split} {kind}", ours, theirs) for split in splits))


def compare_start(task: Task, ours: Answer, theirs: Answer) -> Iterator[Finding]:
    for stage in ("drawn", "held"):
        yield worst(3, f"weights {stage}", 0.0,
                    (apart(name, ours, theirs) for name in all_names(ours, theirs, f"{stage} ")))
    for answer in (ours, theirs):
        pairs = [(name, name.replace("held", "drawn", 1)) for name in answer.arrays if name.startswith("held ")]
        yield worst(3, f"weights held as drawn, {answer.label}", 0.0,
                    (difference(name, answer.arrays[name], answer.arrays[drawn], "held", "drawn")
                     for name, drawn in pairs))


def compare_forward(task: Task, ours: Answer, theirs: Answer) -> Iterator[Finding]:
    model = task.name.removeprefix("forward-")
    for mode in ("evaluation", "training"):
        yield worst(4, f"{mode} logits, {model}", LOGITS, [apart(f"{mode} logits", ours, theirs)])
    yield worst(5, f"loss, {model}", GRADIENTS, [apart("loss", ours, theirs, relative=True)])
    names = all_names(ours, theirs, "gradient ")
    # What BatchNorm takes out again, such as the bias of another one before it, has a gradient of nothing but rounding.
    floor = SMALLEST_GRADIENT * max((float(np.abs(ours.arrays[name]).max()) for name in names if name in ours.arrays),
                                    default=0.0)
    yield worst(5, f"gradients, {model}", GRADIENTS,
                (apart(name, ours, theirs, relative=True, floor=floor) for name in names))


def compare_rates(task: Task, ours: Answer, theirs: Answer) -> Iterator[Finding]:
    a, b = ours.arrays["rates"], theirs.arrays["rates"]
    figure, where = math.inf, f"{len(a)} steps in {ours.label}, {len(b)} in {theirs.label}"
    if a.shape == b.shape:
        apart_by = np.abs(a - b) / np.maximum(np.maximum(np.abs(a), np.abs(b)), np.finfo(np.float64).tiny)
        step = int(np.argmax(apart_by))
        figure = float(apart_by[step])
        where = f"step {step + 1}: {a[step]:.10g} in {ours.label}, {b[step]:.10g} in {theirs.label}" if figure else ""
    yield Finding(6, task.config.schedule.name, figure, RATES, where)


def compare_fit(task: Task, ours: Answer, theirs: Answer) -> Iterator[Finding]:
    optimizer = task.config.optimizer.name
    losses = [np.array([row["train/loss_step"] for row in answer.rows if "train/loss_step" in row])
              for answer in (ours, theirs)]
    # A fit that ends with a whole epoch may run a little past the last mark.
    for mark in (mark for mark in MARKS if mark <= len(losses[0])):
        figure, where = difference("loss", losses[0][:mark], losses[1][:mark], ours.label, theirs.label, count_from=1)
        yield Finding(7, f"loss up to step {mark}, {optimizer}", figure, LOSS_UP_TO_STEP[mark],
                      where.replace("loss[", "loss of step ").replace("]", ""))
        for kind, is_kind in (("weights", False), ("BatchNorm statistics", True)):
            names = [name for name in all_names(ours, theirs, f"step {mark} ") if (".running_" in name) == is_kind]
            if names or not is_kind:  # not every model has BatchNorm
                yield worst(7, f"{kind} after step {mark}, {optimizer}", WEIGHTS,
                            (apart(name, ours, theirs) for name in names))
    yield worst(7, f"test logits after step {len(losses[0])}, {optimizer}", LOGITS_AFTER_FIT,
                [apart("test logits", ours, theirs)])
    yield from compare_epochs(task, ours, theirs)
    for answer in (ours, theirs):
        yield against_scikit_learn(answer, optimizer)


def compare_epochs(task: Task, ours: Answer, theirs: Answer) -> Iterator[Finding]:
    epochs = [[row for row in answer.rows if "val/loss" in row] for answer in (ours, theirs)]
    steps = len([row for row in ours.rows if "train/loss_step" in row])
    images = {"train": steps // len(epochs[0]) * task.config.train.batch_size,
              "val": json.loads((ours.run / "run.json").read_text())["sizes"]["val"]}
    images["val"] = min(images["val"], task.config.debug.limit_batches * task.config.train.eval_batch_size)
    for split, count in images.items():
        for metric in ("loss", "accuracy"):
            name = f"{split}/{metric}"
            a, b = (np.array([row[name] for row in rows]) for rows in epochs)
            if metric == "accuracy":  # torchmetrics divides in float32, what was divided is a whole number
                a, b = whole(a * count) / count, whole(b * count) / count
            figure, where = difference(name, a, b, ours.label, theirs.label, count_from=1)
            yield Finding(8, f"{name}, {task.config.optimizer.name}", figure, EPOCH_METRICS,
                          where.replace("[", " of epoch ").replace("]", ""))


def against_scikit_learn(answer: Answer, optimizer: str) -> Finding:
    """Scores in result.json against scikit-learn's of predictions.npz; inf where an image is missing or counted twice.
    """
    from scipy.special import softmax
    from sklearn.metrics import accuracy_score, log_loss

    result = json.loads((answer.run / "result.json").read_text())
    with np.load(answer.run / "predictions.npz") as file:
        logits, label, index = file["logits"].astype(np.float64), file["label"], file["index"]
    expected = {"accuracy": accuracy_score(label, logits.argmax(axis=1)),
                "loss": log_loss(label, softmax(logits, axis=1), labels=np.arange(logits.shape[1]))}
    found = [(abs(result[f"test/{name}"] - value), f"test/{name}: {result[f'test/{name}']:.8g} in {answer.label}, "
              f"{value:.8g} by scikit-learn") for name, value in expected.items()]
    if not np.array_equal(np.sort(index), np.arange(len(index))):
        found.append((math.inf, "predictions.npz does not hold each test image once"))
    return worst(9, f"{answer.label}, {optimizer}", SCORES, found)


def whole(counts: np.ndarray) -> np.ndarray:
    """Counts that are whole numbers but for float32's rounding; others stay as they are, for they are no counts."""
    return np.where(np.abs(counts - counts.round()) < 1e-3, counts.round(), counts)


def worst(rung: int, what: str, tolerance: float, found: Iterator[tuple[float, str]] | list) -> Finding:
    """The largest of several differences as one finding."""
    figure, where = max(found, key=lambda pair: pair[0], default=(math.inf, "nothing was recorded"))
    return Finding(rung, what, figure, tolerance, where)


def all_names(ours: Answer, theirs: Answer, start: str) -> list[str]:
    return sorted(name for name in ours.arrays.keys() | theirs.arrays.keys() if name.startswith(start))


def paired(measure: Callable) -> Callable:
    """A measure of two arrays that is infinite where one of them is missing."""
    def measured(name: str, ours: Answer, theirs: Answer, **options: bool | float) -> tuple[float, str]:
        for here, there in ((ours, theirs), (theirs, ours)):
            if name not in here.arrays:
                return math.inf, f"{name} in {there.label} only"
        return measure(name, ours.arrays[name], theirs.arrays[name], ours.label, theirs.label, **options)
    return measured


def difference(name: str, a: np.ndarray, b: np.ndarray, ours: str, theirs: str, relative: bool = False,
               floor: float = 0.0, count_from: int = 0) -> tuple[float, str]:
    """The largest absolute difference and where it is; relative to the largest value of `a`, and no less than `floor`,
    where asked for."""
    if a.shape != b.shape:
        return math.inf, f"{name} is {a.shape} in {ours}, {b.shape} in {theirs}"
    if a.size == 0:
        return 0.0, ""
    apart_by = np.abs(a - b)
    apart_by = np.where(np.isfinite(apart_by), apart_by, np.inf)
    place = np.unravel_index(np.argmax(apart_by), a.shape)
    figure = float(apart_by[place])
    if not figure:
        return 0.0, ""
    if relative:
        scale = max(float(np.abs(a).max()), floor)
        figure = figure / scale if scale else math.inf
    at = f"[{', '.join(str(int(i) + count_from) for i in place)}]" if place else ""
    return figure, f"{name}{at}: {a[place]:.10g} in {ours}, {b[place]:.10g} in {theirs}"


def samples_unequal(name: str, a: np.ndarray, b: np.ndarray, ours: str, theirs: str) -> tuple[float, str]:
    """How many samples differ, and the first that does."""
    if a.shape != b.shape:
        return math.inf, f"{name}: {len(a)} in {ours}, {len(b)} in {theirs}"
    unlike = (a != b).reshape(len(a), -1).any(axis=1)
    if not unlike.any():
        return 0.0, ""
    first = int(np.argmax(unlike))
    return float(unlike.sum()), f"{name}: {unlike.sum()} of {len(a)} samples differ, the first at position {first}"


apart = paired(difference)
unequal = paired(samples_unequal)
COMPARISONS = {"raw": compare_raw, "pixels": compare_pixels, "start": compare_start, "forward": compare_forward,
               "rates": compare_rates, "fit": compare_fit}
