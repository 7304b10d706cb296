"""The pictures of the scores: which classes are taken for which, and whether the model is as sure as it is right."""

from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from shared.machine.console import format_percent
from shared.scores.calibration import BINS, Reliability
from shared.scores.summary import Summary, compute_interval

MOST_CLASSES = 20  # in the picture of the confusion; more cannot be read
LONGEST = 20  # characters of a class's name
# Blue and vermilion are of the palette of Okabe and Ito, told apart in all common kinds of colour blindness.
RIGHT, WRONG, GREY = "#0072B2", "#D55E00", "#555555"
TOO_SURE, UNSURE = "#EFA06B", "#9CCBE8"
RIGHTS = LinearSegmentedColormap.from_list("right answers", ["#EEF5FA", RIGHT])
WRONGS = LinearSegmentedColormap.from_list("wrong answers", ["#FCE9DC", WRONG])


@rc_context({"text.parse_math": False})  # a $ in the name of a class is no formula
def draw_confusion(summary: Summary, path: Path) -> None:
    """Write the confusion matrix to `path`, a PNG: a row has the images of a class, a column those taken for it.

    Of more than MOST_CLASSES classes it shows those with the most frequent confusions.
    """
    shown = choose_classes(summary.confusion)
    counts = summary.confusion[np.ix_(shown, shown)]
    totals = summary.confusion.sum(axis=1)[shown]
    shares = counts / np.maximum(totals, 1)[:, None]  # of all images of the row's class, also where not all are shown
    names = [name if len(name) <= LONGEST else f"{name[:LONGEST - 1]}…" for name in np.take(summary.classes, shown)]
    labels = [f"{name}  ({total:,})" for name, total in zip(names, totals, strict=True)]

    letter = 0.075  # inches that a letter of a label is wide
    slanted = max(map(len, names)) > 3
    above = 0.72 * letter * max(map(len, names)) + 0.15 if slanted else 0.25
    side = len(shown) * min(max(0.42, 4 / len(shown)), 0.8)
    left, top = 0.2 + letter * max(map(len, labels)), 0.7 + above
    width, height = max(left + side + (above if slanted else 0.25), 5.6), top + side + 0.5
    figure = Figure(figsize=(width, height), dpi=120)
    axes = figure.add_axes((left / width, 0.5 / height, side / width, side / height))

    diagonal = np.eye(len(shown), dtype=bool)
    wrong = np.where(diagonal, 0, shares)
    most = max(float(wrong.max()), 0.05)
    axes.imshow(np.ma.masked_where(~diagonal, shares), cmap=RIGHTS, vmin=0, vmax=1)
    # The square root tells one wrong answer in a hundred from none.
    axes.imshow(np.ma.masked_where(wrong == 0, wrong), cmap=WRONGS, norm=PowerNorm(0.5, 0, most))
    for row, column in zip(*counts.nonzero(), strict=True):
        is_dark = shares[row, column] > (0.65 if row == column else 0.5 * most)
        axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", fontsize=8,
                  color="white" if is_dark else "black")
    axes.set_xticks(range(len(shown)), names, **{"rotation": 45, "ha": "left", "rotation_mode": "anchor"}
                    if slanted else {})
    axes.set_yticks(range(len(shown)), labels)
    axes.tick_params(length=0, labelsize=9, labeltop=True, labelbottom=False)
    edges, ends = np.arange(len(shown) + 1) - 0.5, (-0.5, len(shown) - 0.5)
    axes.hlines(edges, *ends, color="#E8E8E8", linewidth=0.8)
    axes.vlines(edges, *ends, color="#E8E8E8", linewidth=0.8)
    axes.spines[:].set_visible(False)
    write_titles(figure, *describe_confusion(summary, shown),
                 "row: label, with its number of test images · column: the model's answer")
    figure.savefig(path, format="png")


def choose_classes(confusion: np.ndarray) -> list[int]:
    """All classes where they are at most MOST_CLASSES, else those of the most frequent confusions, the most frequent
    first; the first classes where there is no confusion."""
    count = len(confusion)
    if count <= MOST_CLASSES:
        return list(range(count))
    mistakes = confusion.copy()
    np.fill_diagonal(mistakes, 0)
    places = np.argsort(-mistakes, axis=None, kind="stable")[:np.count_nonzero(mistakes)]
    found: dict[int, None] = {}
    for place in places.tolist():
        both = found | dict.fromkeys(divmod(place, count))
        if len(both) > MOST_CLASSES:
            break
        found = both
    return list(found or range(MOST_CLASSES))


def describe_confusion(summary: Summary, shown: list[int]) -> tuple[str, str]:
    """The title of the picture and the line below it."""
    wrong = summary.images - int(summary.confusion.trace())
    told = f"wrong answers: {wrong:,} of {summary.images:,} test images"
    if len(shown) == len(summary.classes):
        return "Which classes are taken for which", told
    chosen = summary.confusion[np.ix_(shown, shown)]
    return (f"The {len(shown)} most confused of {len(summary.classes):,} classes",
            f"{told}, {int(chosen.sum() - chosen.trace()):,} of them between these classes")


def draw_reliability(summary: Summary, path: Path) -> None:
    """Write the reliability diagram to `path`, a PNG; beside it that at the temperature, where there is one."""
    panels = [(f"as trained: calibration error {format_percent(summary.reliability.error)}", summary.reliability)]
    if summary.scaled:
        panels.append((f"at temperature {summary.scores['temperature']:.3g}: "
                       f"{format_percent(summary.scaled.error)}", summary.scaled))
    figure = Figure(figsize=(1.2 + 4.4 * len(panels), 5.6), dpi=120)
    rows = figure.subplots(2, len(panels), sharex=True, sharey="row", squeeze=False,
                           gridspec_kw={"height_ratios": (3.6, 1)})
    figure.subplots_adjust(left=0.75 / figure.get_figwidth(), right=1 - 0.25 / figure.get_figwidth(), top=0.83,
                           bottom=0.15, hspace=0.08, wspace=0.13)
    for column, (title, found) in enumerate(panels):
        rows[0, column].set_title(title, fontsize=10.5, loc="left")
        draw_bins(rows[0, column], rows[1, column], found)
    rows[0, 0].set_ylabel("accuracy")
    rows[1, 0].set_ylabel("images")
    fitted = f"; the temperature is fitted on {summary.val_images:,} validation images" if summary.scaled else ""
    write_titles(figure, "Is the model right as often as it says?",
                 f"{summary.images:,} test images in {BINS} bins of equal width{fitted}",
                 "orange: too sure · light blue: not sure enough · thin line: 95 % interval")
    figure.savefig(path, format="png")


def draw_bins(above: Axes, below: Axes, found: Reliability) -> None:
    """Draw accuracy over confidence, and under it the number of images in each bin."""
    edges = np.linspace(0, 1, BINS + 1)
    filled = found.count > 0
    x, count, confidence, accuracy = (part[filled] for part in
                                      ((edges[:-1] + edges[1:]) / 2, found.count, found.confidence, found.accuracy))
    look = {"width": 0.9 / BINS, "linewidth": 0}
    above.plot((0, 1), (0, 1), color=GREY, linewidth=1, linestyle="--", zorder=1)
    lower = np.minimum(accuracy, confidence)
    above.bar(x, lower, color=RIGHT, zorder=2, **look)
    above.bar(x, np.maximum(accuracy, confidence) - lower, bottom=lower, zorder=2, **look,
              color=np.where(confidence > accuracy, TOO_SURE, UNSURE))
    intervals = [compute_interval(round(share * number), number) for share, number in zip(accuracy, count, strict=True)]
    above.vlines(x, *zip(*intervals, strict=True), color="#222222", linewidth=0.9, zorder=3)
    above.set(xlim=(0, 1), ylim=(0, 1.02))
    below.bar(x, count, color="#9A9A9A", **look)
    below.set_yscale("log")
    below.set_ylim(bottom=0.7)
    below.yaxis.set_major_formatter("{x:,.0f}")
    below.yaxis.set_minor_locator(NullLocator())
    below.set_xlabel("confidence, the probability of the answer")
    for axes in (above, below):
        axes.grid(alpha=0.3, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    above.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")


def write_titles(figure: Figure, title: str, below: str, foot: str) -> None:
    """Write a title with a line below it at the top left, and a line at the foot."""
    width, height = figure.get_size_inches()
    for text, y, look in ((title, 1 - 0.12 / height, {"fontsize": 13, "weight": "bold"}),
                          (below, 1 - 0.4 / height, {"fontsize": 9.5, "color": "#333333"})):
        figure.text(0.15 / width, y, text, va="top", **look)
    figure.text(0.15 / width, 0.12 / height, foot, fontsize=8.5, color=GREY, va="bottom")
