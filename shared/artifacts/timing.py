"""How fast exported models are, each in a process of its own and with one thread, in turns.

python -m shared.artifacts.timing FOLDER is such a process: it writes an empty list once it has answered for the first
time, and then for each line of standard input, the size of a batch, a line with the seconds of some calls.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shared.artifacts.description import Artifact, read_artifact
from shared.artifacts.formats import FORMATS
from shared.artifacts.runtimes import load_artifact
from shared.errors import UserError
from shared.machine.ending import report_errors
from shared.machine.interpreters import list_variables, require_interpreter

ROUNDS = 6      # in which every model has its turn; of the first nothing counts
LONGEST = 1.0   # seconds that a model calculates in a turn, where it has made FEWEST calls
FEWEST, MOST = 4, 25
LARGE = 32      # images of a batch by which throughput is measured


@dataclass
class Timing:
    """Seconds: from the start of the process to the first answer, and of each call with one image and with LARGE."""

    load: float
    one: list[float] = field(default_factory=list)
    large: list[float] = field(default_factory=list)

    @property
    def p50(self) -> float:
        return float(np.percentile(self.one, 50))

    @property
    def p95(self) -> float:
        return float(np.percentile(self.one, 95))

    @property
    def images_per_second(self) -> float:
        return LARGE / float(np.median(self.large))


class Worker:
    """The process of one model. Raises `UserError` where the model cannot be loaded."""

    def __init__(self, artifact: Artifact):
        sibling = FORMATS[artifact.format].sibling
        python = require_interpreter(sibling) if sibling else sys.executable
        one = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
        # Not a pipe, which could become full.
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - it is as long there as the worker
        start = time.perf_counter()
        self.process = subprocess.Popen(
            [python, "-m", "shared.artifacts.timing", str(artifact.folder)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self.errors, text=True,
            env=list_variables() | one | {"CUDA_VISIBLE_DEVICES": "-1"})
        self.read_line()
        self.timing = Timing(time.perf_counter() - start)

    def measure_calls(self, batch: int) -> list[float]:
        """Seconds of each. Raises `UserError` where the process has ended."""
        with contextlib.suppress(BrokenPipeError):
            print(batch, file=self.process.stdin, flush=True)
        return self.read_line()

    def read_line(self) -> list[float]:
        try:
            return json.loads(self.process.stdout.readline())
        except ValueError:
            self.stop()
            self.errors.seek(0)
            signal = -self.process.returncode
            said = f"signal {signal} ended its process" if signal > 0 else \
                (self.errors.read().strip().splitlines() or ["it ended without a word"])[-1]
            raise UserError(said.removeprefix("error: ")) from None

    def stop(self) -> None:
        """Close its input, which ends it."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()


def measure_in_turns(artifacts: list[Artifact]) -> list[Timing | str]:
    """The timing of each; a sentence where it cannot be run here, or its process dies."""
    workers: list[Worker | str] = []
    try:
        for artifact in artifacts:
            try:
                workers.append(Worker(artifact))
            except UserError as error:
                workers.append(str(error))
        for turn in range(ROUNDS):
            for place, worker in enumerate(workers):
                if isinstance(worker, Worker):
                    try:
                        one, large = worker.measure_calls(1), worker.measure_calls(LARGE)
                    except UserError as error:
                        workers[place] = str(error)
                        continue
                    if turn:
                        worker.timing.one += one
                        worker.timing.large += large
    finally:
        for worker in workers:
            if isinstance(worker, Worker):
                worker.stop()
    return [worker.timing if isinstance(worker, Worker) else worker for worker in workers]


def answer_lines(folder: Path) -> None:
    """What the process does."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # for what a framework prints
    artifact = read_artifact(folder)
    seen = artifact.preprocessing
    shape = LARGE, seen.image_size, seen.image_size, seen.channels
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    model = load_artifact(artifact, threads=1)
    model(images[:1])
    print("[]", file=answers, flush=True)
    for line in sys.stdin:
        seconds = []
        while len(seconds) < FEWEST or (sum(seconds) < LONGEST and len(seconds) < MOST):
            start = time.perf_counter()
            model(images[:int(line)])
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), file=answers, flush=True)


if __name__ == "__main__":
    report_errors(lambda: answer_lines(Path(sys.argv[1])))
