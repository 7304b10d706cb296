"""The picture of a sweep: the trials in their order, both siblings against each other, and what mattered."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from shared.machine.colours import COLOURS
from shared.training.sweep.definition import Sweep
from shared.training.sweep.results import FEWEST, correlate_ranks, find_shared
from shared.training.sweep.studies import list_trials

if TYPE_CHECKING:
    from optuna import Study

MARKERS = {"lightning": "o", "keras": "D"}


def draw_sweep(sweep: Sweep, studies: dict[str, "Study"], importance: dict[str, dict[str, float]], path: Path) -> None:
    """Write a PNG of 1920 x 672 pixels to `path`."""
    figure = Figure(figsize=(12, 4.2), dpi=160, layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))
    draw_trials(left, sweep, studies)
    if len(studies) == 2:
        draw_pairs(middle, sweep, studies)
    else:
        middle.set_axis_off()
    draw_importance(right, sweep, importance)
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3, linewidth=0.6)
    figure.savefig(path, format="png")


def choose_scale(axes: Axes, values: np.ndarray, *, both: bool = False) -> None:
    """A logarithmic scale where the values are positive and span more than a factor of ten."""
    if len(values) and values.min() > 0 and values.max() > 10 * values.min():
        axes.set_yscale("log")
        if both:
            axes.set_xscale("log")


def draw_trials(axes: Axes, sweep: Sweep, studies: dict[str, "Study"]) -> None:
    """The metric of each trial, and the best until then."""
    best_so_far = np.minimum if sweep.direction == "min" else np.maximum
    every = []
    for sibling, study in studies.items():
        trials = list_trials(study, "COMPLETE")
        numbers, values = [trial.number + 1 for trial in trials], np.array([trial.value for trial in trials])
        every.append(values)
        axes.plot(numbers, values, MARKERS[sibling], color=COLOURS[sibling], markersize=4.5, alpha=0.75, label=sibling)
        if len(values):
            axes.step(numbers, best_so_far.accumulate(values), where="post", color=COLOURS[sibling], linewidth=1.3)
        pruned = [trial for trial in list_trials(study, "PRUNED") if trial.value is not None]
        axes.plot([trial.number + 1 for trial in pruned], [trial.value for trial in pruned], "x",
                  color=COLOURS[sibling], markersize=5, alpha=0.75)
    choose_scale(axes, np.concatenate(every))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="trial (x: pruned; line: the best so far)", ylabel=sweep.metric, title="trials")
    axes.legend(frameon=False, fontsize=9)


def draw_pairs(axes: Axes, sweep: Sweep, studies: dict[str, "Study"]) -> None:
    """Each trial that finished in both siblings, and the rank correlation."""
    numbers, (a, b) = find_shared(studies)
    first, second = studies
    axes.plot(a, b, "o", color="#444444", markersize=5, alpha=0.75)
    choose_scale(axes, np.concatenate([a, b]), both=True)
    if len(numbers):
        ends = [min(a.min(), b.min()), max(a.max(), b.max())]
        axes.plot(ends, ends, color="#999999", linewidth=0.8, zorder=0)
        choose = np.argmin if sweep.direction == "min" else np.argmax
        for sibling, place in ((first, choose(a)), (second, choose(b))):
            axes.plot(a[place], b[place], MARKERS[sibling], markersize=10, fillstyle="none", markeredgewidth=1.6,
                      color=COLOURS[sibling], label=f"best of {sibling}")
        axes.legend(frameon=False, fontsize=9)
    title = f"{len(numbers)} trials that finished in both"
    if len(numbers) >= FEWEST:
        found = correlate_ranks(a, b)
        title += f"\nrank correlation {found.rho:.2f} ({found.low:.2f} to {found.high:.2f})"
    axes.set(xlabel=f"{sweep.metric}, {first}", ylabel=f"{sweep.metric}, {second}")
    axes.set_title(title, fontsize=11)


def draw_importance(axes: Axes, sweep: Sweep, importance: dict[str, dict[str, float]]) -> None:
    """A bar for each key and sibling."""
    told = {sibling: found for sibling, found in importance.items() if found}
    if not told:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "too few finished trials\nto say what mattered", ha="center", transform=axes.transAxes)
        return
    first = next(iter(told.values()))
    keys = sorted((one.key for one in sweep.space), key=lambda key: first.get(key, 0))
    height = 0.8 / len(told)
    for place, (sibling, found) in enumerate(told.items()):
        heights = np.arange(len(keys)) + (len(told) - 1) * height / 2 - place * height
        axes.barh(heights, [100 * found.get(key, 0) for key in keys], height, color=COLOURS[sibling], label=sibling)
    axes.set_yticks(range(len(keys)), [key.replace(".", ".\n", 1) for key in keys], fontsize=8.5)
    axes.set(xlabel="share of the ranks' variation, %", title="what mattered")
    axes.legend(frameon=False, fontsize=9, loc="lower right")
