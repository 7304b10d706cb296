"""TensorBoard's event files, in the folder `tensorboard` of the run folder."""

import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from shared.runs.folder import RunFolder
from shared.training.examples import Example
from shared.training.trackers.axes import AXES


class TensorBoard:
    def __init__(self, run: RunFolder):
        self.folder, self.wanted = run.folder / "tensorboard", run.config.tracking.tensorboard

    def start(self) -> None:
        # TensorBoard imports TensorFlow wherever it is installed, unless this module is there.
        sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("tensorboard.compat.notf"))
        from tensorboard.summary import Writer

        self.writer = Writer(str(self.folder))

    def log(self, row: dict[str, float]) -> None:
        for name, value in row.items():
            if name not in AXES:
                self.writer.add_scalar(name, value, row["samples"])
        self.writer.flush()

    def finish(self, result: dict[str, Any] | None, status: int, pictures: Sequence[Path],
               collect_examples: Callable[[], list[Example]]) -> None:
        """Pictures and examples are left out, since TensorBoard's own writer has scalars only."""
        self.writer.close()

    def abandon(self) -> None:
        """Nothing has to be ended after a failure."""
