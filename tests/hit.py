"""A training that a fault hits: python tests/hit.py SIBLING FAULT STEP [word ...]

FAULT comes after training step STEP, counted over the run:
kill, kill-worker      SIGKILL to the process, or to the second process of a run of two
term, int              SIGTERM or SIGINT
term-worker            SIGTERM to the second process alone
kill-writing           SIGKILL when half of the next checkpoint is written
kill-moving            SIGKILL when the old checkpoint has been moved away and the new one is not yet in its place
full-disk              from there on no file can grow beyond 1 MiB
nan                    the loss of the step is not a number
none                   nothing
"""

import importlib
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from conftest import SMALL  # beside this file, whose folder is where Python looks first

from shared.config import parse_config
from shared.config.command import report_errors
from shared.machine import files
from shared.models import RESNETS
from shared.runs import folder
from shared.training.recorder import Recorder

RESNETS |= SMALL  # because it is written to disk after every second step
Recorder.write_scores = lambda *_: ({}, [])  # whose pictures take as long as an epoch


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def replace_or_die(fault: str) -> Any:
    original = os.replace

    def replace(source: Path, target: Path) -> None:
        moving = str(target).rpartition("/")[2].startswith("previous.")
        if moving and fault == "kill-writing":
            unfinished = next(Path(target).parent.glob("*.unfinished"))
            os.truncate(unfinished, unfinished.stat().st_size // 2)
            die()
        original(source, target)
        if moving:
            die()
    return replace


def strike(fault: str, worker: bool) -> None:
    if fault in ("kill", "kill-worker") and worker == (fault == "kill-worker"):
        die()
    if fault == "term-worker" and worker:
        os.kill(os.getpid(), signal.SIGTERM)
    if fault in ("term", "int") and not worker:
        os.kill(os.getpid(), {"term": signal.SIGTERM, "int": signal.SIGINT}[fault])
    if fault in ("kill-writing", "kill-moving") and not worker:
        files.os = folder.os = mock.Mock(wraps=os, replace=replace_or_die(fault))
    if fault == "full-disk":
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, resource.RLIM_INFINITY))


def main() -> None:
    sibling, fault, step, *words = sys.argv[1:]
    original = Recorder.end_step

    def end_step(self: Recorder, now: int, loss: float, *rest: float) -> None:
        hit = now == int(step)
        original(self, now, float("nan") if hit and fault == "nan" else loss, *rest)
        if hit:
            strike(fault, worker=not self.run.leader)

    with mock.patch.object(Recorder, "end_step", end_step):
        # What `train.py` does, with this file's command line left in place, which DDP starts the other processes with.
        train = importlib.import_module(f"{sibling}_project.train").train
        report_errors(lambda: train(parse_config(words, "train.py", "")))


if __name__ == "__main__":
    main()
