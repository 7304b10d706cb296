"""A sibling's programs, each in a process of its own, which ends with the time of the part that it belongs to."""

import contextlib
import json
import math
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.config import parse_config, to_yaml
from shared.errors import shorten
from shared.machine.files import REPOSITORY
from shared.machine.interpreters import explain_not_runnable, list_variables, require_interpreter

LONGEST = 200  # characters of a reason


class ProgramError(Exception):
    """A program did not do what it was started for. The message is one line, `log` the end of what it printed."""

    def __init__(self, message: str, log: list[str]):
        super().__init__(shorten(message, LONGEST))
        self.log = log[-30:]


class OutOfTimeError(ProgramError):
    """A program was killed at the deadline."""


@dataclass
class Runner:
    """Runs the programs of a `sibling`, whose files go to `folder`, until the `deadline` of the monotonic clock."""

    sibling: str
    on_gpu: bool
    folder: Path
    deadline: float = math.inf
    trained: dict[str, Path] = field(default_factory=dict)  # the run folders of `train`

    @property
    def accelerator(self) -> str:
        return "gpu" if self.on_gpu else "cpu"

    def train(self, name: str, *words: str, accelerator: str = "", variables: dict[str, str] | None = None) -> Path:
        """The run folder of the training called `name`, which is made by train.py where it is not there yet.

        Raises:
            ProgramError: where it fails, or computes elsewhere than on the `accelerator`, which is this runner's own
                unless another is named.
        """
        if name not in self.trained:
            accelerator = accelerator or self.accelerator
            folder, script = self.folder / name, REPOSITORY / f"{self.sibling}_project" / "train.py"
            status, log = self.run([str(script), *words, f"hardware.accelerator={accelerator}", f"output_dir={folder}"],
                                   variables)
            if status:
                raise ProgramError(find_reason(status, log), log)
            runs = [file.parent for file in folder.glob("*/*/run.json")]
            if len(runs) != 1:  # a run that was to be resumed has been begun anew
                raise ProgramError(f"there are {len(runs)} runs in place of one", log)
            device = read_facts(runs[0])["device"]
            if not device.endswith(f"({accelerator})"):
                raise ProgramError(f"it computed on {device} in place of the {accelerator}", log)
            self.trained[name] = runs[0]
        return self.trained[name]

    def measure(self, module: str, what: str, count: int, *words: str) -> Any:
        """What the sibling's `module`, bench or gpu_check, writes when it measures `what`; see there."""
        status, log, out = self.call(module, what, count, *words)
        if status:
            raise ProgramError(find_reason(status, log), log)
        return json.loads(out.read_text(encoding="utf-8"))

    def call(self, module: str, what: str, count: int, *words: str) -> tuple[int, list[str], Path]:
        """The same, as its exit status, what it printed, and the file that it was to write."""
        config, out = self.folder / "config.yaml", self.folder / "out.json"
        # The last of two words for a key counts.
        config.write_text(to_yaml(parse_config([
            f"hardware.accelerator={self.accelerator}", "tracking.mode=disabled", f"output_dir={self.folder / what}",
            *words], "python -m shared.bench.gpu", "")), encoding="utf-8")
        out.unlink(missing_ok=True)
        return *self.run(["-m", f"{self.sibling}_project.{module}", str(config), str(out), what, str(count)]), out

    def run(self, words: list[str], variables: dict[str, str] | None = None) -> tuple[int, list[str]]:
        """The exit status of the sibling's Python with these words, and the lines that it printed.

        Raises:
            OutOfTimeError: where the deadline comes first; the process and those that it has started are killed then.
        """
        file, in_time = self.folder / "log.txt", True  # and no pipe, which a process that is left over would keep open
        with file.open("wb") as log:
            try:
                process = subprocess.Popen([require_interpreter(self.sibling), *words], cwd=self.folder, stdout=log,
                                           stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
                                           env=list_variables() | (variables or {}))
            except OSError as error:
                raise explain_not_runnable(self.sibling, error) from None
            try:
                left = self.deadline - time.monotonic()
                status = process.wait(None if math.isinf(left) else max(0, left))
            except subprocess.TimeoutExpired:
                in_time = False
            finally:
                with contextlib.suppress(ProcessLookupError):  # the usual end: nothing of it is left
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        lines = [line for line in file.read_text(errors="replace", encoding="utf-8").splitlines() if line]
        if not in_time:
            raise OutOfTimeError("it was not done in time", lines)
        return status, lines


def find_reason(status: int, log: list[str]) -> str:
    """Why a program failed: its line for the user, or the last of a traceback, or the signal that ended it."""
    if status < 0:
        return f"it was ended by {signal.Signals(-status).name}"
    told = [line for line in log if line.startswith("error: ")]
    last = told[-1] if told else next(iter(log[::-1]), f"it ended with status {status} without a message")
    return last.removeprefix("error: ").removeprefix("shared.errors.UserError: ")


def read_facts(run: Path) -> dict[str, Any]:
    return json.loads((run / "run.json").read_text(encoding="utf-8"))
