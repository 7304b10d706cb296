"""The picture of exported models: size against latency, with the accuracy of each."""

from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from shared.artifacts.formats import FORMATS
from shared.artifacts.table import Row
from shared.artifacts.timing import Timing
from shared.machine.colours import COLOURS
from shared.machine.console import format_percent, format_points

MARKERS = dict(zip(FORMATS, "osD^v", strict=True))
GAP = 0.045  # between two labels, of the height of the axes


@rc_context({"text.parse_math": False})  # a $ in the name of a run is no formula
def draw_artifacts(rows: list[Row], title: str, path: Path) -> None:
    """Write a PNG of 1600 x 960 pixels to `path`. Models that could not be run are not in it."""
    rows = [row for row in rows if isinstance(row.timing, Timing)]
    figure = Figure(figsize=(10, 6), dpi=160)
    axes = figure.subplots()
    figure.text(0.012, 0.975, title, fontsize=13, weight="bold", va="top")
    sizes, latencies = [row.artifact.size / 1e6 for row in rows], [1e3 * row.timing.p50 for row in rows]
    axes.set(xscale="log", yscale="log", xlabel="size, MB", ylabel="latency of one image, ms (median; one thread)")
    axes.set_xlim(min(sizes, default=1) / 1.5, max(sizes, default=1) * 3.5)  # with room for labels on the right
    axes.set_ylim(min(latencies, default=1) / 1.6, max(latencies, default=1) * 1.6)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    places = [tuple(axes.transAxes.inverted().transform(axes.transData.transform(point)))
              for point in zip(sizes, latencies, strict=True)]
    for row, (x, y), height in zip(rows, places, spread_labels(places), strict=True):
        colour = COLOURS[row.artifact.maker]
        axes.plot(x, y, MARKERS[row.artifact.format], color=colour, markersize=9, transform=axes.transAxes,
                  markerfacecolor="white" if row.artifact.quantisation else colour, markeredgewidth=1.8)
        named = f"{row.label}, {row.run}" if len({row.run for row in rows}) > 1 else row.label
        said = named + ("" if row.accuracy is None else f", {format_percent(row.accuracy)}")
        if row.artifact.quantisation and row.accuracy is not None:
            said += f" ({format_points(row.accuracy - row.artifact.content['checks']['accuracy_trained'])})"
        axes.annotate(said, (x, y), (x + 0.035, height), xycoords="axes fraction", textcoords="axes fraction",
                      fontsize=10, va="center", color=colour,
                      arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkB": 6})
    legend = [Line2D([], [], color=colour, marker="o", linestyle="", label=f"made by {maker}")
              for maker, colour in COLOURS.items() if any(row.artifact.maker == maker for row in rows)]
    if any(row.artifact.quantisation for row in rows):
        legend.append(Line2D([], [], color="#555555", marker="o", markerfacecolor="white", linestyle="",
                             label="quantised"))
    axes.legend(handles=legend, loc="upper left", fontsize=10)
    figure.subplots_adjust(left=0.075, right=0.985, top=0.92, bottom=0.095)
    figure.savefig(path, format="png")


def spread_labels(places: list[tuple[float, float]]) -> list[float]:
    """Heights for the labels of points (x, y), as near to y as leaves GAP between those of neighbours in x."""
    heights = [y for _, y in places]
    for _ in range(200):
        moved = False
        for first in range(len(places)):
            for second in range(first):
                apart = heights[first] - heights[second]
                if abs(places[first][0] - places[second][0]) < 0.3 and abs(apart) < GAP - 1e-9:
                    push = (GAP - abs(apart)) / 2 * (1 if (apart or places[first][1] - places[second][1]) >= 0 else -1)
                    heights[first] += push
                    heights[second] -= push
                    moved = True
        if not moved:
            break
    return heights
