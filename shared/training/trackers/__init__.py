"""Trackers, which receive the rows of metrics.jsonl too. No tracker may ever stop a training.

A tracker is a class with a property `wanted` and four methods: `start`, `log` for a row, `finish` for the result, and
`abandon` after a failure. To add one, name it in TRACKERS.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from shared.runs.folder import RunFolder
from shared.training.examples import Example
from shared.training.trackers.tensorboard import TensorBoard
from shared.training.trackers.wandb import WeightsAndBiases, explain_reason

TRACKERS = {"Weights & Biases": WeightsAndBiases, "TensorBoard": TensorBoard}


class Trackers:
    """Sends rows to every tracker that the config asks for. A tracker that fails is reported once and not used again.
    """

    def __init__(self, run: RunFolder):
        self.active: dict[str, Any] = {}
        if not run.leader:  # the processes of a run are tracked as one
            return
        for name, kind in TRACKERS.items():
            tracker = kind(run)
            if tracker.wanted and self.attempt(name, tracker.start):
                self.active[name] = tracker

    def attempt(self, name: str, action: Callable[[], None]) -> bool:
        """Call `action`, and return whether it succeeded; print why where it did not."""
        try:
            action()
            return True
        except Exception as error:
            print(f"{name} failed and is left out from here on: {explain_reason(error)}; metrics.jsonl has everything",
                  file=sys.stderr, flush=True)
            return False

    def log(self, row: dict[str, float]) -> None:
        """Send a row of metrics.jsonl."""
        for name, tracker in list(self.active.items()):
            if not self.attempt(name, lambda tracker=tracker: tracker.log(row)):
                del self.active[name]
                tracker.abandon()

    def finish(self, result: dict[str, Any] | None, status: int, pictures: Sequence[Path] = (),
               collect_examples: Callable[[], list[Example]] = list) -> None:
        """Close all trackers. `result` becomes a run's summary; `status` 0 marks the run as finished, 1 as failed.

        `pictures` are PNG files, shown under their names by trackers that show pictures. `collect_examples` is called
        by trackers that show test images with their answers.
        """
        for name, tracker in self.active.items():
            if not self.attempt(name, lambda tracker=tracker: tracker.finish(
                    result, status, pictures, collect_examples)):
                tracker.abandon()
        self.active = {}
