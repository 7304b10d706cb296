"""The curves of runs as the page's script wants them: each run by itself, and runs of several seeds as bands."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from shared.compare.facts import FACTS, OFFERED_METRICS
from shared.compare.web.sides import Group
from shared.runs.records import SavedRun
from shared.scores.summary import Summary

AXES = {"samples": "training images seen", "epoch": "epochs", "time/train_s": "wall clock of training"}
TITLES = {"loss": "loss", "accuracy": "accuracy", "lr": "learning rate", "loss_step": "loss of single steps",
          "images_per_second": "images per second", "epoch_seconds": "seconds of an epoch",
          "peak_memory_gib": "peak memory, GiB"}
SHARES = {fact.name.rpartition("/")[2] for fact in (*FACTS, *OFFERED_METRICS) if fact.is_share}
# A page of 20 runs is to stay far below 5 MB: so many values in all, and of a curve no fewer than FEWEST.
MOST_VALUES, FEWEST = 100_000, 60


def collect_curves(runs: list[SavedRun], names: list[str], groups: list[Group],
                   scores: list[Summary | None]) -> dict[str, Any]:
    """What page.js draws; it says there what it reads."""
    last = max((row["time/train_s"] for run in runs for row in run.history), default=0)
    unit, seconds = next(found for found in (("hours", 3600), ("minutes", 60), ("seconds", 1))
                         if last > 2 * found[1] or found[1] == 1)
    metrics = list(dict.fromkeys(name for run in runs for row in run.history for name in row if name not in AXES))
    points = max(FEWEST, MOST_VALUES // max(1, len(runs) * len(metrics)))
    tracks = [collect_tracks(run.history, seconds) for run in runs]
    lines: list[dict[str, Any]] = [{}] * len(runs)
    for group in groups:
        for place in group.places:
            lines[place] = {"label": names[place] + ("" if runs[place].finished else " (unfinished)"),
                            "framework": group.framework, "colour": group.colour,
                            "tracks": [part for track in tracks[place] for part in thin(track, points)],
                            "bins": describe_bins([scores[place]])}
    bands = [{"label": group.name, "framework": group.framework, "colour": group.colour, "lines": group.places,
              "bins": describe_bins([scores[place] for place in group.places]),
              "tracks": [part for track in average_tracks([tracks[place] for place in group.places])
                         for part in thin(track, points)]} for group in groups]
    longest = max((len(track["x"][0]) for own in tracks for track in own), default=0)
    return {"axes": [*list(AXES.values())[:2], f"{AXES['time/train_s']}, {unit}"], "lines": lines,
            "bands": bands if any(len(group.places) > 1 for group in groups) else [],
            "charts": describe_charts(runs, metrics), "thinned": points if longest > points else 0}


def collect_tracks(history: list[dict[str, float]], seconds: int) -> list[dict[str, Any]]:
    """The metrics of a run in tracks: those in one have values in the same rows. `x` (3, n) are the rows' samples,
    epochs, and time in units of so many `seconds`; `values` has (n,) float64 for each metric, NaN where it was not
    finite."""
    rows_of: dict[str, dict[float, int]] = {}
    for number, row in enumerate(history):
        for name in row:
            if name not in AXES:
                rows_of.setdefault(name, {})[row["samples"]] = number  # of a step and an epoch that end together, one
    found: dict[tuple[int, ...], list[str]] = {}
    for name, rows in rows_of.items():
        found.setdefault(tuple(rows.values()), []).append(name)

    def column(rows: Iterable[int], name: str) -> np.ndarray:
        return np.array([history[row].get(name) for row in rows], np.float64)
    return [{"x": np.stack([column(rows, "samples"), column(rows, "epoch"), column(rows, "time/train_s") / seconds]),
             "values": {name: column(rows, name) for name in names}} for rows, names in found.items()]


def average_tracks(runs: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The mean, the lowest and the highest value of the metrics that all of several runs have at the same samples. Each
    stands at the mean of the times at which the runs were there."""
    if len(runs) < 2:
        return []
    found = []
    for track in runs[0]:
        for name in track["values"]:
            own = [other for tracks in runs for other in tracks if name in other["values"]]
            if len(own) < len(runs) or any(not np.array_equal(other["x"][0], track["x"][0]) for other in own):
                continue
            every = np.stack([other["values"][name] for other in own])  # (runs, n)
            found.append({"x": np.mean([other["x"] for other in own], axis=0), "values": {name: every.mean(axis=0)},
                          "low": {name: every.min(axis=0)}, "high": {name: every.max(axis=0)}})
    return found


def thin(track: dict[str, Any], points: int) -> list[dict[str, Any]]:
    """The track as JSON has it. One of more than so many `points` is split into its metrics, and of each stretch of
    such a curve the smallest and the largest value are left, besides the first and the last."""
    count = track["x"].shape[1]
    if count <= points:
        return [write_track(track, np.arange(count), list(track["values"]))]
    parts = []
    for name, values in track["values"].items():
        kept = {0, count - 1}
        for stretch in np.array_split(np.arange(count), (points - 2) // 2):
            own = values[stretch]
            if np.isfinite(own).any():
                kept |= {int(stretch[np.nanargmin(own)]), int(stretch[np.nanargmax(own)])}
            lost = np.flatnonzero(~np.isfinite(own))
            kept |= set(stretch[lost[:1]].tolist())  # a gap stays a gap
        parts.append(write_track(track, np.array(sorted(kept)), [name]))
    return parts


def write_track(track: dict[str, Any], kept: np.ndarray, names: list[str]) -> dict[str, Any]:
    parts = {"x": [round_values(column[kept]) for column in track["x"]]}
    return parts | {part: {name: round_values(track[part][name][kept]) for name in names}
                    for part in ("values", "low", "high") if part in track}


def round_values(values: np.ndarray) -> list[float | int | None]:
    """Values of six digits, or as many as a whole number has; None, a gap in the curve, where one is not finite."""
    return [None if not math.isfinite(value) else int(value) if value == int(value) else float(f"{value:.6g}")
            for value in values.tolist()]


def describe_charts(runs: list[SavedRun], metrics: list[str]) -> list[dict[str, Any]]:
    """The charts in their order, loss and accuracy first. `metrics` of a chart are of training, which is drawn dashed,
    of validation, or of neither. `log` says that it is of losses that span a factor of ten."""
    found: dict[str, list[str]] = {"loss": [], "accuracy": []}
    for name in metrics:
        found.setdefault(name.rpartition("/")[2], []).append(name)
    charts = []
    for short, names in found.items():
        values = np.concatenate([run.get_curve(name)[2] for run in runs for name in names] or [np.empty(0)])
        charts.append({
            "title": TITLES.get(short, short), "share": short in SHARES,
            "log": short.startswith("loss") and len(values) > 0 and bool(values.max() > 10 * values.min() > 0),
            "of": "speed" if names and names[0].startswith("perf/") else "curves",
            "metrics": {name.partition("/")[0] if len(names) > 1 else "": name for name in names}})
    return [chart for chart in charts if chart["metrics"]]


def describe_bins(scores: list[Summary | None]) -> dict[str, list[list[float]]]:
    """Confidence, accuracy and images of the filled bins, as trained and at the temperature, over all of these runs."""
    found = {"as trained": [one.reliability for one in scores if one],
             "at the temperature": [one.scaled for one in scores if one and one.scaled]}
    written = {}
    for title, parts in found.items():
        count = np.sum([part.count for part in parts], axis=0)
        if parts:
            means = [np.nansum([part.count * getattr(part, name) for part in parts], axis=0)[count > 0]
                     / count[count > 0] for name in ("confidence", "accuracy")]
            written[title] = [round_values(values) for values in (*means, count[count > 0])]
    return written
