"""The picture of a comparison: loss and accuracy over training images seen and over wall clock."""

import math
import textwrap
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from shared.machine.colours import COLOURS
from shared.machine.console import format_percent
from shared.runs.records import SavedRun

# The siblings' curves often coincide. The second is drawn thin on top of a thick first, so that both are seen.
WIDTHS = {"lightning": 3.0, "keras": 1.4}
MARKERS = ("o", "s", "^")
STYLES = {"train": "--", "val": "-"}
CURVES = [f"{split}/{quantity}" for split in STYLES for quantity in ("loss", "accuracy")]
# Up to this many runs of a sibling are drawn as lines; more are drawn as their mean and their range.
MOST_LINES = 3


def draw_comparison(runs: list[SavedRun], labels: list[str], title: str, verdict: str, same: bool, path: Path) -> None:
    """Write a PNG of 1600 x 1168 pixels to `path`.

    `labels` name the runs in the legend. `verdict` is written under the `title`, in red unless the runs are the `same`
    experiment.
    """
    figure = Figure(figsize=(10, 7.3), dpi=160)
    panels = figure.subplots(2, 2, sharex="col", sharey="row")
    figure.text(0.012, 0.985, title, fontsize=14, weight="bold", va="top", parse_math=False)
    lines = textwrap.wrap(verdict, 125)
    if len(lines) > 2:
        lines = [lines[0], textwrap.shorten(" ".join(lines[1:]), 125, placeholder=" ... (more in comparison.md)")]
    figure.text(0.012, 0.947, "\n".join(lines), fontsize=10, va="top", color="#333333" if same else "#A50026",
                weight="normal" if same else "bold", parse_math=False)
    last = max((run.get_curve(metric)[1].max(initial=0) for run in runs for metric in CURVES), default=0)
    unit, seconds = next(found for found in (("hours", 3600), ("minutes", 60), ("seconds", 1))
                         if last > 2 * found[1] or found[1] == 1)
    for row, quantity in zip(panels, ("loss", "accuracy"), strict=True):
        for axes, clock in zip(row, (False, True), strict=True):
            for framework in COLOURS:
                own = [run for run in runs if run.framework == framework]
                for split, style in STYLES.items():
                    draw_curves(axes, framework, own, f"{split}/{quantity}", style, seconds if clock else None)
        style_panels(row, quantity)
    panels[1, 0].set_xlabel("training images seen")
    panels[1, 0].xaxis.set_major_formatter(EngFormatter(sep=" "))
    panels[1, 1].set_xlabel(f"wall clock of training, {unit}")
    for axes in panels[1]:
        axes.set_xlim(left=0)
    names = {"train": "training", "val": "validation"}
    panels[0, 0].legend(handles=[Line2D([], [], color="#555555", linestyle=style, label=names[split])
                                 for split, style in STYLES.items()], loc="upper right", fontsize=10)
    legend = [entry for framework in COLOURS for entry in build_legend(framework, runs, labels)]
    columns = min(len(legend), 2 if max(len(entry.get_label()) for entry in legend) > 30 else 3)
    figure.legend(handles=legend, loc="lower center", ncols=columns, frameon=False, fontsize=10.5)
    figure.subplots_adjust(left=0.082, right=0.985, top=0.935 - 0.027 * len(lines), wspace=0.06, hspace=0.07,
                           bottom=0.085 + 0.035 * math.ceil(len(legend) / columns))
    figure.savefig(path, format="png")


def draw_curves(axes: Axes, framework: str, runs: list[SavedRun], metric: str, style: str, seconds: int | None) -> None:
    """Draw one sibling's curves of `metric` over samples, or over wall clock in units of so many `seconds`."""
    look = {"color": COLOURS[framework], "linestyle": style, "zorder": 2 + list(COLOURS).index(framework)}
    curves = [curve for curve in (run.get_curve(metric) for run in runs) if len(curve[0])]
    if are_aligned(curves):
        # An epoch ends after other seconds in each run: over wall clock its mean is drawn at the mean of those times.
        samples, clock, values = (np.mean(part, axis=0) for part in zip(*curves, strict=True))
        x = samples if seconds is None else clock / seconds
        every = np.stack([values for _, _, values in curves])  # (runs, epochs)
        axes.plot(x, values, **look, linewidth=WIDTHS[framework])
        axes.fill_between(x, every.min(axis=0), every.max(axis=0), color=COLOURS[framework], alpha=0.15, linewidth=0)
        return
    for number, (samples, clock, values) in enumerate(curves):
        width = WIDTHS[framework] if len(curves) == 1 else 1.0
        few = len(values) <= 2  # a line through one point cannot be seen without a marker
        marked = few or 1 < len(curves) <= MOST_LINES
        axes.plot(samples if seconds is None else clock / seconds, values, **look, linewidth=width,
                  alpha=0.8 if len(curves) == 1 else 0.65, marker=MARKERS[number % 3] if marked else None,
                  markersize=4.5, markevery=max(1, len(values) // 10))


def are_aligned(curves: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> bool:
    """Whether there are many curves, with values at the same samples, so that their mean and range can be drawn."""
    return len(curves) > MOST_LINES and all(np.array_equal(samples, curves[0][0]) for samples, _, _ in curves)


def style_panels(row: np.ndarray, quantity: str) -> None:
    """Set scale, grid and labels of the two panels in a row, which show the same quantity."""
    left, right = row
    left.set_ylabel(quantity, labelpad=2)
    for axes in row:
        axes.grid(alpha=0.3, linewidth=0.6, which="major")
        axes.spines[["top", "right"]].set_visible(False)
    right.tick_params(labelleft=False)
    values = np.concatenate([line.get_ydata() for line in left.lines] or [np.empty(0)])
    values = values[np.isfinite(values)]
    if not len(values):
        for axes in row:
            axes.text(0.5, 0.5, "no finished epoch yet", transform=axes.transAxes, ha="center", color="#555555")
            axes.set(xlim=(0, 1), ylim=(0, 1))
    elif quantity == "accuracy":
        left.set_ylim(max(0.0, values.min() - 0.03), min(1.0, values.max() + 0.1) + 0.005)
        left.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.4g} %")
    elif values.min() > 0 and values.max() > 10 * values.min():
        left.set_yscale("log")
        left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        left.yaxis.set_major_formatter("{x:g}")
        left.yaxis.set_minor_formatter(NullFormatter())


def build_legend(framework: str, runs: list[SavedRun], labels: list[str]) -> list[Line2D | Patch]:
    """A sibling's entries in the legend: one for each run, with its test accuracy, or one for many runs."""
    own = [(run, label) for run, label in zip(runs, labels, strict=True) if run.framework == framework]
    colour = COLOURS[framework]
    if len(own) > MOST_LINES:
        tested = [score for run, _ in own if (score := run.get_score("test/accuracy")) is not None]
        drawn = "mean and range of " if are_aligned([run.get_curve("val/accuracy") for run, _ in own]) else ""
        mean = f", test accuracy {format_percent(np.mean(tested))}" if tested else ""
        return [Patch(color=colour, label=f"{framework}: {drawn}{len(own)} runs{mean}")]
    found = []
    for number, (run, label) in enumerate(own):
        tested = run.get_score("test/accuracy")
        ending = f", test accuracy {format_percent(tested)}" if tested is not None else ""
        ending += "" if run.finished else " (unfinished)"
        found.append(Line2D([], [], color=colour, linewidth=WIDTHS[framework] if len(own) == 1 else 1.2,
                            marker=MARKERS[number] if len(own) > 1 else None, markersize=4.5, label=label + ending))
    return found
