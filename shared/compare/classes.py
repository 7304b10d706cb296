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
    try:
        pair = [summarise_run(run) for run in runs]
    except UserError as error:
        return [f"The predictions are not compared: {error}."]
    table = tabulate_scores(label_runs(runs), pair)
    blocks: list[Table | str] = [table]
    if pair[0].classes == pair[1].classes and np.array_equal(*(run.predictions.label for run in runs)):
        rows = list_differing_classes(pair)
        blocks.append(Table(["recall of the classes that differ most", "images", *table.header[1:]], rows) if rows else
                      "The runs have the same recall in each class.")
    return blocks


def summarise_run(run: SavedRun) -> "Summary":
    """The scores of a run's predictions.

    Raises:
        UserError: where it is unfinished or has no finite predictions.
    """
    from shared.scores.summary import summarise_predictions  # here, because scikit-learn takes a second or two

    if not run.finished:
        raise UserError("it is unfinished")
    if run.predictions is None:
        raise UserError("it has no predictions.npz")
    return summarise_predictions(run.predictions, read_predictions(run.folder / "predictions.npz", VAL),
                                 run.record.get("classes") or ())


def tabulate_scores(names: Sequence[str], found: Sequence["Summary"]) -> Table:
    """The scores of up to three runs of these names, which are columns then, with one that compares them if they are
    two; more runs are rows."""
    from shared.scores.report import TITLES, format_interval, format_score

    shown = [name for name in SHOWN if any(one.scores[name] is not None for one in found)]
    columns = [[format_interval(one.scores), *(format_score(name, one.scores[name]) for name in shown)]
               for one in found]
    titles = ["accuracy, 95 % interval", *(TITLES[name].text for name in shown)]
    if len(names) > 3:
        return Table(["of the predictions", *titles],
                     [[name, *column] for name, column in zip(names, columns, strict=True)])
    header = ["of the predictions", *names]
    if len(names) == 2:
        header.append(f"{names[1]} − {names[0]}" if set(names) == set(FRAMEWORKS) else "second − first")
        columns.append(["", *(format_difference(TITLES[name].is_share, *(one.scores[name] for one in found))
                              for name in shown)])
    return Table(header, list(map(list, zip(titles, *columns, strict=True))))


def format_difference(is_share: bool, first: float | None, second: float | None) -> str:
    if first is None or second is None:
        return "-"
    return format_points(second - first) if is_share else f"{second - first:+.4f}".replace("-", "−")


def list_differing_classes(pair: Sequence["Summary"]) -> list[list[str]]:
    """Rows of at most MOST_CLASSES classes whose recall differs, the largest difference first."""
    found = [(first, second) for first, second in zip(pair[0].per_class, pair[1].per_class, strict=True)
             if first.recall != second.recall]
    found.sort(key=lambda both: -abs(both[1].recall - both[0].recall))
    return [[first.name, f"{first.support:,}", format_percent(first.recall), format_percent(second.recall),
             format_points(second.recall - first.recall)] for first, second in found[:MOST_CLASSES]]
