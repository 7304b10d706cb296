"""The picture of a study: what accuracy costs in each sibling, and which structures nothing cheaper beats."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from shared.machine.colours import COLOURS

MARKERS = {"lightning": "o", "keras": "D"}


def draw_study(study: dict[str, Any], path: Path) -> None:
    """Write a PNG of 1920 x 880 pixels to `path`, on white, so that it can be read on any page."""
    figure = Figure(figsize=(12, 5.5), dpi=160, layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2, sharey=True)
    draw_costs(left, study["rows"], "multiply_adds", 1e-6, "millions of multiply-adds for an image")
    draw_costs(right, study["rows"], "train_seconds", 1, "seconds of training")
    left.set_ylabel("test accuracy, % (bars: 95 % interval)")
    right.legend(frameon=False, fontsize=9.5, loc="best")
    figure.savefig(path, format="png")


def draw_costs(axes: Axes, rows: list[dict[str, Any]], cost: str, unit: float, title: str) -> None:
    """Accuracy over a cost. A grey line joins the siblings of a structure, a coloured one those of a sibling that
    nothing as cheap beats."""
    rows = [{**row, "x": row[cost] * unit, "y": 100 * row["accuracy"]} for row in rows if row[cost]]
    for sibling in dict.fromkeys(row["sibling"] for row in rows):
        own, colour = [row for row in rows if row["sibling"] == sibling], COLOURS[sibling]
        bars = [[row["y"] - 100 * row["accuracy_low"] for row in own],
                [100 * row["accuracy_high"] - row["y"] for row in own]]
        axes.errorbar([row["x"] for row in own], [row["y"] for row in own], bars, fmt=MARKERS[sibling], color=colour,
                      markersize=6, elinewidth=0.8, label=sibling.capitalize())
        best = find_front([(row["x"], row["y"]) for row in own])
        axes.step(*zip(*best, strict=True), where="post", color=colour, linewidth=1.2, alpha=0.6)
    for name in dict.fromkeys(row["name"] for row in rows):
        pair = sorted((row for row in rows if row["name"] == name), key=lambda row: row["y"])
        axes.plot([row["x"] for row in pair], [row["y"] for row in pair], color="#999999", linewidth=0.8, zorder=0)
        axes.annotate(name, (pair[-1]["x"], pair[-1]["y"]), (5, 5), textcoords="offset points", fontsize=9,
                      color="#222222")
    axes.set(xscale="log", xlabel=title)
    axes.set_xlim(right=1.9 * max((row["x"] for row in rows), default=1))  # room for the last name
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3, linewidth=0.6)


def find_front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of points of a cost and a gain, those that no other one of at most that cost reaches, by ascending cost."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front
