"""The scores of two runs' predictions side by side, and the classes in which the runs differ most."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from shared.errors import UserError
from shared.machine.console import Table, format_percent, format_points
from shared.runs.records import FRAMEWORKS, VAL, SavedRun, label_runs, read_predictions

if TYPE_CHECKING:
    from shared.scores.summary import Summary

SHOWN = ("macro_f1", "log_loss", "brier", "calibration_error", "temperature", "scaled_calibration_error", "set_size",
         "set_coverage")
MOST_CLASSES = 5


def compare_scores(runs: list[SavedRun]) -> list[Table | str]:
    """Two tables of a pair of finished runs that kept their predictions; nothing of other runs."""
    if len(runs) != 2 or not all(run.finished and run.predictions for run in runs):
        return []
    from shared.scores.summary import summarise_predictions  # here, because scikit-learn takes a second or two

    try:
        pair = [summarise_predictions(run.predictions, read_predictions(run.folder / "predictions.npz", VAL),
                                      run.record.get("classes") or ()) for run in runs]
    except UserError as error:
        return [f"The predictions are not compared: {error}."]
    names = label_runs(runs)
    change = f"{names[1]} − {names[0]}" if set(names) == set(FRAMEWORKS) else "second − first"
    blocks: list[Table | str] = [Table(["of the predictions", *names, change], tabulate_scores(pair))]
    if pair[0].classes == pair[1].classes and np.array_equal(*(run.predictions.label for run in runs)):
        rows = list_differing_classes(pair)
        blocks.append(Table(["recall of the classes that differ most", "images", *names, change], rows) if rows else
                      "The runs have the same recall in each class.")
    return blocks


def tabulate_scores(pair: Sequence["Summary"]) -> list[list[str]]:
    from shared.scores.report import TITLES, format_interval, format_score

    rows = [["accuracy, 95 % interval", *(format_interval(one.scores) for one in pair), ""]]
    for name in SHOWN:
        first, second = (one.scores[name] for one in pair)
        if first is None and second is None:
            continue
        change = "-" if first is None or second is None else \
            format_points(second - first) if TITLES[name].is_share else f"{second - first:+.4f}".replace("-", "−")
        rows.append([TITLES[name].text, format_score(name, first), format_score(name, second), change])
    return rows


def list_differing_classes(pair: Sequence["Summary"]) -> list[list[str]]:
    """Rows of at most MOST_CLASSES classes whose recall differs, the largest difference first."""
    found = [(first, second) for first, second in zip(pair[0].per_class, pair[1].per_class, strict=True)
             if first.recall != second.recall]
    found.sort(key=lambda both: -abs(both[1].recall - both[0].recall))
    return [[first.name, f"{first.support:,}", format_percent(first.recall), format_percent(second.recall),
             format_points(second.recall - first.recall)] for first, second in found[:MOST_CLASSES]]
