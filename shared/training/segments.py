"""The segments of a run: the stretches of epochs for each of which one schedule was planned.

A run that was resumed with another number of epochs has several. They stand in run.json, where the fairness gate looks.
"""

from dataclasses import asdict, replace
from itertools import pairwise
from typing import Any

import numpy as np

from shared.config import Config
from shared.training.schedule import tabulate_rates


def add_segment(segments: list[dict[str, Any]], config: Config, step: int, steps: int) -> list[dict[str, Any]]:
    """The `segments` of a run that goes on after `step` with this config; `steps` is per epoch.

    Where the steps so far had other learning rates than a run of this config would have given them, so that the run is
    another experiment than one of a single piece, the new segment has a `jump`: the rates before and after `step`.
    """
    kept = [segment for segment in segments if segment["from_epoch"] * steps < step]  # what came later is trained anew
    if kept and kept[-1]["epochs"] == config.train.epochs:
        return kept
    new = {"from_epoch": step / steps if kept else 0, "epochs": config.train.epochs, **asdict(config.schedule)}
    past, planned = tabulate_past(kept, config, step, steps), tabulate_rates(config, steps)
    if not np.array_equal(past, planned[:step]):
        new["jump"] = [float(past[-1]), float(planned[min(step, len(planned) - 1)])]
    return [*kept, new]


def tabulate_past(segments: list[dict[str, Any]], config: Config, step: int, steps: int) -> np.ndarray:
    """The learning rate at each of the first `step` training steps, (step,) float64."""
    starts = [round(segment["from_epoch"] * steps) for segment in segments]
    rates = [tabulate_rates(replace(config, train=replace(config.train, epochs=segment["epochs"])), steps)[first:end]
             for segment, (first, end) in zip(segments, pairwise([*starts, step]), strict=True)]
    return np.concatenate(rates) if rates else np.zeros(0)


def describe_change(old: list[dict[str, Any]], new: list[dict[str, Any]], folder: str) -> list[str]:
    """The line to print where a run goes on with other segments than it had; none where only a plan was dropped."""
    before, now = old[-1]["epochs"], new[-1]["epochs"]
    if before == now:
        return []
    if "jump" not in new[-1]:
        return [f"train.epochs was {before} and is {now} now; the learning rate is the same either way"]
    last, first = new[-1]["jump"]
    return [f"train.epochs was {before} and is {now} now, so the schedule changes after epoch "
            f"{new[-1]['from_epoch']:g}: the learning rate jumps from {last:.3g} to {first:.3g}, and this is another "
            f"experiment than {now} epochs in one piece; to train on from these weights as a run of its own, use "
            f"init_from={folder}"]
