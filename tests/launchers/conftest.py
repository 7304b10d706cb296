"""A launcher at work beside stand-ins for the scheduler and the training."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.machine.files import REPOSITORY

FOLDER = REPOSITORY / "configs" / "launchers"
STUBS = ("srun", "scancel", "scontrol", "training")


class Launch:
    """A launcher at work beside its stand-ins."""

    def __init__(self, folder: Path):
        self.folder, self.bin, self.process = folder, folder / "bin", None
        self.bin.mkdir()
        source = (REPOSITORY / "tests" / "launchers" / "stubs.py").read_text()
        for name in STUBS:
            (self.bin / name).write_text(f"#!{sys.executable} -S\n{source}")
            (self.bin / name).chmod(0o755)
        self.environment = {
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}", "HOME": str(folder), "STUBS": str(folder),
            "PYTHON": str(self.bin / "training")}

    def start(self, script: Path, *words: str, **variables: str) -> "Launch":
        self.process = subprocess.Popen(
            ["bash", str(script), *words], cwd=REPOSITORY, env=self.environment | variables, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        return self

    def end(self) -> int:
        self.out, self.err = self.process.communicate(timeout=30)
        return self.process.returncode

    def calls(self, name: str) -> list[dict]:
        path = self.folder / "calls.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        return [call for call in found if call["name"] == name]

    def wait_for(self, name: str, number: int = 1) -> None:
        self.wait_until(lambda: len(self.calls(name)) == number)

    def wait_until(self, reached: Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not reached():
            assert time.monotonic() < end, self.folder.joinpath("calls.jsonl").read_text()
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.02)


@pytest.fixture
def launch(tmp_path):
    here = Launch(tmp_path)
    yield here
    tasks = tmp_path / "tasks"
    # A training that outlived its launcher would hold the pipes open, and the end below would wait for ever.
    started = [call["pid"] for call in here.calls("training")]
    for pid in [*started, *map(int, tasks.read_text().split() if tasks.exists() else [])]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if here.process and here.process.poll() is None:
        here.process.kill()
        here.process.communicate()


def arguments(call: dict) -> list[str]:
    return call["arguments"]
