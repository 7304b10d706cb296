"""What is compared on each rung between two answers to the same task, and how close they have to be."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from shared.parity.findings import (
    Answer,
    Finding,
    compare_samples,
    compare_values,
    find_worst,
    list_names,
    measure_difference,
)
from shared.parity.request import MARKS, Task
from shared.parity.scores import compare_scores

# The largest absolute differences that pass in float64. Those of gradients and learning rates are relative.
PIXELS = 1e-6
LOGITS = 1e-8
GRADIENTS = 1e-8
SMALLEST_GRADIENT = 1e-4  # of the largest gradient of all; what the differences of smaller gradients are divided by
RATES = 1e-12
# Rounding errors grow from step to step: after 50, on an Intel Xeon, Lightning with one thread and with two were 9e-10
# apart in BatchNorm's statistics, and the siblings 1.2e-9.
LOSS_UP_TO_STEP = dict(zip(MARKS, (1e-12, 1e-10, 1e-9), strict=True))
WEIGHTS_AFTER_STEP = dict(zip(MARKS, (1e-12, 1e-10, 1e-8), strict=True))
# The bias of attention's keys changes no output, so that its gradient is nothing but rounding, and Lion moves it by the
# sign of that. The other optimizers' fits compare it.
SIGN_OF_NOISE = ".attn.qkv.bias"
LOGITS_AFTER_FIT = 1e-7
EPOCH_METRICS = 1e-9
IN_FLOAT32 = 1e-6  # for metrics that torchmetrics computes in float32 throughout
LOGITS_FP32 = 1e-4

# In less than float64 the first rounding error grows about tenfold every two steps of the quick start, until it is as
# large as the difference between any two runs. While it grows, one run tells its size to an order of magnitude only.
# Besides, another number of threads changes nothing in operations that are too small to be divided among threads, while
# the siblings' convolutions differ in all. Once it has stopped growing, the siblings differ like any two such runs, and
# some of those are a few times as far apart as others.
MARGIN, MARGIN_GROWN = 10.0, 4.0
MEASURED = (4, 5, 7, 8)  # the rungs whose tolerance is measured


def compare_answers(task: Task, ours: Answer, theirs: Answer) -> list[Finding]:
    """All comparisons for a task, in an order that does not depend on the answers."""
    return list(COMPARISONS[task.kind](task, ours, theirs))


def judge_by_yardsticks(findings: list[Finding], threads: list[Finding], rounding: list[Finding],
                   precision: str) -> list[Finding]:
    """`findings` in less than float64, with tolerances that were measured in the same run.

    `threads` holds the same comparisons between Lightning and itself with another number of threads, and `rounding`
    those between Lightning and itself in float64. The tolerance is a margin times the largest of them over all cases of
    a kind, such as the optimizers of a fit. For logits in float32 it is LOGITS_FP32, or a margin times the larger of
    the two in the same case.
    """
    yardsticks: dict[tuple[int, str], float] = {}
    for finding in (*threads, *rounding):
        yardsticks[name_kind(finding)] = max(yardsticks.get(name_kind(finding), 0.0), finding.figure)
    judged = []
    for finding, drift, error in zip(findings, threads, rounding, strict=True):
        if finding.rung in MEASURED:
            tolerance, own = choose_margin(finding) * yardsticks[name_kind(finding)], max(drift.figure, error.figure)
            # In a deep model BatchNorm over few values takes Lightning further from itself than the limits below, so
            # that a margin of the case's own yardstick is allowed too.
            if finding.rung == 4 and precision == "fp32":
                tolerance = max(LOGITS_FP32, MARGIN_GROWN * own)
            if finding.rung == 5:  # a relative difference above 1 means that a gradient points elsewhere
                tolerance = min(tolerance, max(1.0, MARGIN_GROWN * own))
            finding = replace(finding, tolerance=tolerance, threads=drift.figure, rounding=error.figure)
        judged.append(finding)
    return judged


def choose_margin(finding: Finding) -> float:
    """How many times the yardstick the siblings may be apart: fewer where the difference has stopped growing."""
    is_grown = finding.rung == 8 or f"step {MARKS[-1]}," in finding.what
    return MARGIN_GROWN if is_grown else MARGIN


def name_kind(finding: Finding) -> tuple[int, str]:
    """The kind of a comparison, whose cases share a yardstick: its rung and what is compared, without the case."""
    # The loss shares the yardstick of the gradients, since the rounding error of a single number may happen to be 0.
    return finding.rung, "" if finding.rung == 5 else finding.what.rpartition(", ")[0]


def compare_raw(task: Task, ours: Answer, theirs: Answer) -> Iterator[Finding]:
    names = {"split": [f"{split} {part}" for split in ("train", "val", "test") for part in ("samples", "labels")],
             "order": ["index"], "bytes": ["bytes"], "targets": ["target"]}
    for what, parts in names.items():
        what = f"{what}, {task.name}" if task.name != "raw" else what
        yield find_worst(1, what, 0.0, (compare_samples(part, ours, theirs) for part in parts))


def compare_pixels(task: Task, ours: Answer, theirs: Answer) -> Iterator[Finding]:
    for kind in ("images", "targets"):
        for phase, splits in (("training", [f"train epoch {epoch + 1}" for epoch in range(task.config.train.epochs)]),
                              ("evaluation", ["val", "test"])):
            yield find_worst(2, f"{phase} {kind}, {task.name}", PIXELS,
                        (compare_values(f"{split} {kind}", ours, theirs) for split in splits))


def compare_start(task: Task, ours: Answer, theirs: Answer) -> Iterator[Finding]:
    case = task.name.replace("start", "", 1).replace("-", ", ", 1)
    for stage in ("drawn", "held"):
        yield find_worst(3, f"weights {stage}{case}", 0.0,
                    (compare_values(name, ours, theirs) for name in list_names(ours, theirs, f"{stage} ")))
    for answer in (ours, theirs):
        pairs = [(name, name.replace("held", "drawn", 1)) for name in answer.arrays if name.startswith("held ")]
        yield find_worst(3, f"weights held as drawn{case}, {answer.label}", 0.0,
                    (measure_difference(name, answer.arrays[name], answer.arrays[drawn], "held", "drawn")
                     for name, drawn in pairs))


def compare_forward(task: Task, ours: Answer, theirs: Answer) -> Iterator[Finding]:
    model = task.name.removeprefix("forward-")
    for mode in ("evaluation", "training", "views"):  # of test-time augmentation
        yield find_worst(4, f"{mode} logits, {model}", LOGITS, [compare_values(f"{mode} logits", ours, theirs)])
    yield find_worst(5, f"loss, {model}", GRADIENTS, [compare_values("loss", ours, theirs, relative=True)])
    names = list_names(ours, theirs, "gradient ")
    # BatchNorm removes what some parameters add, such as the bias of another BatchNorm before it. Their gradients are
    # nothing but rounding errors.
    floor = SMALLEST_GRADIENT * max((float(np.abs(ours.arrays[name]).max()) for name in names if name in ours.arrays),
                                    default=0.0)
    yield find_worst(5, f"gradients, {model}", GRADIENTS,
                (compare_values(name, ours, theirs, relative=True, floor=floor) for name in names))


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
    case = task.name.removeprefix("fit-")
    losses = [np.array([row["train/loss_step"] for row in answer.rows if "train/loss_step" in row])
              for answer in (ours, theirs)]
    # A fit ends with a whole epoch, and so may have a few steps more than the last mark.
    for mark in (mark for mark in MARKS if mark <= len(losses[0])):
        figure, where = measure_difference("loss", losses[0][:mark], losses[1][:mark], ours.label, theirs.label,
                                           count_from=1)
        yield Finding(7, f"loss up to step {mark}, {case}", figure, LOSS_UP_TO_STEP[mark],
                      where.replace("loss[", "loss of step ").replace("]", ""))
        for kind, is_kind in (("weights", False), ("BatchNorm statistics", True)):
            names = [name for name in list_names(ours, theirs, f"step {mark} ") if (".running_" in name) == is_kind
                     and not (case == "lion" and name.endswith(SIGN_OF_NOISE))]
            if names or not is_kind:  # not every model has BatchNorm
                yield find_worst(7, f"{kind} after step {mark}, {case}", WEIGHTS_AFTER_STEP[mark],
                            (compare_values(name, ours, theirs) for name in names))
    yield find_worst(7, f"test logits after step {len(losses[0])}, {case}", LOGITS_AFTER_FIT,
                [compare_values("test logits", ours, theirs)])
    yield from compare_epochs(task, ours, theirs)
    for answer in (ours, theirs):
        yield compare_scores(task, answer)


def compare_epochs(task: Task, ours: Answer, theirs: Answer) -> Iterator[Finding]:
    epochs = [[row for row in answer.rows if "val/loss" in row] for answer in (ours, theirs)]
    steps = len([row for row in ours.rows if "train/loss_step" in row])
    images = {"train": steps // len(epochs[0]) * task.config.train.batch_size,
              "val": json.loads((ours.run / "run.json").read_text(encoding="utf-8"))["sizes"]["val"]}
    images["val"] = min(images["val"], task.config.debug.limit_batches * task.config.train.eval_batch_size)
    case = task.name.removeprefix("fit-")
    for name in (name for name in epochs[0][0] if name.startswith(("train/", "val/"))):
        split, _, metric = name.partition("/")
        a, b = (np.array([row.get(name, math.nan) for row in rows]) for rows in epochs)
        if metric in ("accuracy", "top5"):  # torchmetrics divides whole numbers of images, but in float32
            a, b = round_counts(a * images[split]) / images[split], round_counts(b * images[split]) / images[split]
        figure, where = measure_difference(name, a, b, ours.label, theirs.label, count_from=1)
        tolerance = EPOCH_METRICS if metric in ("loss", "accuracy", "top5") else IN_FLOAT32
        yield Finding(8, f"{name}, {case}", figure, tolerance, where.replace("[", " of epoch ").replace("]", ""))


def round_counts(counts: np.ndarray) -> np.ndarray:
    """`counts` without float32's rounding errors. Values that are further from a whole number stay as they are, since
    they do not count images."""
    return np.where(np.abs(counts - counts.round()) < 1e-3, counts.round(), counts)


COMPARISONS = {"raw": compare_raw, "pixels": compare_pixels, "start": compare_start, "forward": compare_forward,
               "rates": compare_rates, "fit": compare_fit}
