"""The answers of two siblings to the same task, and findings: how far apart they are, and where."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from shared.parity.request import Arrays


@dataclass(frozen=True)
class Answer:
    """What a sibling wrote for a task: arrays and, for a fit, a run folder."""

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
        return [json.loads(line) for line in (self.run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


@dataclass(frozen=True)
class Finding:
    """The result of one comparison: a difference, `figure`, and its `tolerance`.

    `what` says what was compared, and `where` names the tensor, step or sample that differs most, with both values.
    """

    rung: int
    what: str
    figure: float
    tolerance: float
    where: str = ""
    threads: float | None = None   # the same figure between Lightning and itself with another number of threads
    rounding: float | None = None  # and between Lightning and itself in float64

    @property
    def passes(self) -> bool:
        return self.figure <= self.tolerance  # false for NaN

    @property
    def strain(self) -> float:
        """The share of the tolerance that is used up."""
        return 0.0 if self.figure == 0 else self.figure / self.tolerance if self.tolerance else math.inf


def find_worst(rung: int, what: str, tolerance: float, found: Iterator[tuple[float, str]] | list) -> Finding:
    """One finding for the largest of several differences; each of `found` is a difference and where it is."""
    figure, where = max(found, key=lambda pair: pair[0], default=(math.inf, "nothing was recorded"))
    return Finding(rung, what, figure, tolerance, where)


def list_names(ours: Answer, theirs: Answer, start: str) -> list[str]:
    """The names of arrays in either answer that begin with `start`."""
    return sorted(name for name in ours.arrays.keys() | theirs.arrays.keys() if name.startswith(start))


def require_both(measure: Callable) -> Callable:
    """Turn a `measure` of two arrays into one of two answers, which is infinite where one lacks the array."""
    def measure_answers(name: str, ours: Answer, theirs: Answer, **options: bool | float) -> tuple[float, str]:
        for here, there in ((ours, theirs), (theirs, ours)):
            if name not in here.arrays:
                return math.inf, f"{name} in {there.label} only"
        return measure(name, ours.arrays[name], theirs.arrays[name], ours.label, theirs.label, **options)
    return measure_answers


def measure_difference(name: str, a: np.ndarray, b: np.ndarray, ours: str, theirs: str, relative: bool = False,
               floor: float = 0.0, count_from: int = 0) -> tuple[float, str]:
    """The largest absolute difference between arrays `a` and `b`, and where it is.

    With `relative` it is divided by the largest absolute value of `a`, or by `floor` where that is larger. Indices are
    told counting from `count_from`.
    """
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


def count_unequal_samples(name: str, a: np.ndarray, b: np.ndarray, ours: str, theirs: str) -> tuple[float, str]:
    """How many samples of `a` and `b`, (n, ...), differ, and which is the first."""
    if a.shape != b.shape:
        return math.inf, f"{name}: {len(a)} in {ours}, {len(b)} in {theirs}"
    differ = (a != b).reshape(len(a), -1).any(axis=1)
    if not differ.any():
        return 0.0, ""
    first = int(np.argmax(differ))
    return float(differ.sum()), f"{name}: {differ.sum()} of {len(a)} samples differ, the first at position {first}"


compare_values = require_both(measure_difference)
compare_samples = require_both(count_unequal_samples)
