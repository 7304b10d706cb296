"""The scores of predictions as text for a terminal."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from shared.machine.console import Table, format_percent
from shared.scores.calibration import BINS
from shared.scores.conformal import PERCENT
from shared.scores.summary import TOP, ClassScores, Summary

WORST = 3  # classes in the short form


class Title(NamedTuple):
    """What a score is called, and whether it is a share, which is shown in percent."""

    text: str
    is_share: bool = True


TITLES = {
    "accuracy": Title("accuracy"),
    "top5": Title(f"top-{TOP} accuracy"),
    "macro_precision": Title("precision, mean over classes"),
    "macro_recall": Title("recall, mean over classes"),
    "macro_f1": Title("F1, mean over classes"),
    "weighted_precision": Title("precision, classes weighted by images"),
    "weighted_recall": Title("recall, classes weighted by images"),
    "weighted_f1": Title("F1, classes weighted by images"),
    "log_loss": Title("log loss, nats", is_share=False),
    "brier": Title("Brier score, 0 to 2", is_share=False),
    "calibration_error": Title(f"calibration error ({BINS} equal bins)"),
    "temperature": Title("temperature", is_share=False),
    "scaled_log_loss": Title("log loss at the temperature, nats", is_share=False),
    "scaled_calibration_error": Title("calibration error at the temperature"),
    "set_threshold": Title("smallest probability in a set", is_share=False),
    "set_size": Title(f"classes in a set that is to hold {PERCENT} %", is_share=False),
    "set_coverage": Title("sets that hold the label"),
}


def format_score(name: str, value: float | None) -> str:
    return "-" if value is None else format_percent(value) if TITLES[name].is_share else f"{value:.4f}"


def format_interval(scores: dict[str, float | None]) -> str:
    return f"{100 * scores['accuracy_low']:.2f} to {100 * scores['accuracy_high']:.2f} %"


def format_short(summary: Summary) -> str:
    """Four lines, and one for each note."""
    found = {name: format_score(name, summary.scores[name]) for name in TITLES}
    scaled = "" if summary.scaled is None else \
        f", {found['scaled_calibration_error']} at temperature {summary.scores['temperature']:.3g}"
    lines = [f"accuracy           {found['accuracy']}, 95 % interval {format_interval(summary.scores)}",
             f"log loss, Brier    {found['log_loss']}, {found['brier']}",
             f"calibration error  {found['calibration_error']}{scaled}"]
    if summary.scores["set_size"] is not None:
        lines.append(f"sets for {PERCENT} %      {summary.scores['set_size']:.2f} classes on average, "
                     f"{found['set_coverage']} of them hold the label")
    worst = ", ".join(f"{one.name} ({format_percent(one.f1)})" for one in list_worst(summary)[:WORST])
    lines.append(f"worst classes      {f'{worst} by F1' if worst else 'every answer is right'}")
    return "\n".join([*lines, *summary.notes])


def list_worst(summary: Summary) -> list[ClassScores]:
    """The classes with a mistake, that with the smallest F1 first."""
    found = [one for one in summary.per_class if one.f1 is not None and one.f1 < 1]
    return sorted(found, key=lambda one: one.f1)


def format_full(summary: Summary) -> str:
    """Every score that there is, and the table of the classes in their order."""
    rows = [[title.text, format_score(name, summary.scores[name])] for name, title in TITLES.items()
            if summary.scores[name] is not None]
    rows.insert(1, ["accuracy, 95 % interval", format_interval(summary.scores)])
    fitted = f"{summary.images:,} test images" + (
        f", and {summary.val_images:,} validation images to fit temperature and sets" if summary.val_images else "")
    return "\n\n".join(filter(None, [fitted, Table(["score", "value"], rows).to_text(),
                                     tabulate_classes(summary).to_text(math.inf), "\n".join(summary.notes)]))


def tabulate_classes(summary: Summary) -> Table:
    rows = [[one.name, f"{one.support:,}", f"{one.predicted:,}",
             *("-" if share is None else format_percent(share) for share in (one.precision, one.recall, one.f1)),
             f"{one.taken_for} ({one.times:,})" if one.times else "-"] for one in summary.per_class]
    return Table(["class", "images", "predicted", "precision", "recall", "F1", "most often taken for"], rows)


def list_confusions(summary: Summary) -> Iterator[tuple[str, str, int]]:
    """Label, answer and number of images of every kind of mistake, the most frequent first."""
    found = [(row, column) for row, column in zip(*summary.confusion.nonzero(), strict=True) if row != column]
    for row, column in sorted(found, key=lambda place: -summary.confusion[place]):
        yield summary.classes[row], summary.classes[column], int(summary.confusion[row, column])
