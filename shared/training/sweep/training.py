"""A training in a process of its own, and how several of them are run: started, followed, stopped, resumed.

Its folder, beside the run folders of its group, holds what its process prints, log.txt, and which process it is or was,
process.json. It is locked as run folders are, so that of several sweeps one has it.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from shared.config import Config
from shared.errors import StoppedError, UserError
from shared.machine.console import say
from shared.machine.files import REPOSITORY, append_line, expand_home, write_json
from shared.machine.interpreters import explain_not_runnable, list_variables, require_interpreter
from shared.runs.lock import RunLock, UnavailableError, identify_machine, read_process_start
from shared.runs.records import read_history, read_json
from shared.training.stopping import StopRequest

POLL = 0.5  # seconds between two looks at the processes
NEWS = 60.0  # seconds after which a training that goes on is told of again
GRACE = 120.0  # seconds that a training has to save, as under the launchers
MOST_RESUMES = 2  # times that a training which a signal has ended goes on by itself
ADVICE = "the same command goes on"


class Training:
    """A training of a sibling with a `config`, which the key=value or file `words` of its command line make."""

    def __init__(self, sibling: str, config: Config, words: list[str]):
        self.sibling, self.words = sibling, words
        self.monitor, self.planned = config.train.monitor, config.train.epochs
        self.group = expand_home(config.output_dir) / config.group
        self.runs = f"{sibling}_seed{config.seed}_*"
        self.folder = self.group / "processes" / f"{sibling}_seed{config.seed}"
        self.lock: RunLock | None = None
        self.process: subprocess.Popen | None = None
        self.started, self.asked, self.resumes = time.monotonic(), 0.0, 0
        self.last_read = (0.0, 0.0)  # when metrics.jsonl was read, and how many seconds that took
        self.epochs: list[tuple[int, float]] = []

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    def hold(self) -> bool:
        """Take the training for this process; False where another process has it.

        Raises:
            UserError: where its folder cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"output_dir: {self.folder} cannot be made ({error.strerror}); choose another") from None
        try:
            self.lock = RunLock.acquire(self.folder)
        except UnavailableError:
            return False
        return True

    def start(self) -> None:
        """Start the process, or let the run in its group go on that an earlier one has left. Where that one has just
        finished, nothing is started.

        Raises:
            UserError: where the interpreter cannot be run, or the disk is full.
        """
        self.end_orphan()
        if self.find_result() is not None:  # it was at its end; another start would train anew
            return
        command = [require_interpreter(self.sibling), str(REPOSITORY / f"{self.sibling}_project" / "train.py"),
                   *self.words, "resume=auto"]
        append_line(self.log, f"$ {shlex.join(command)}\n")
        with self.log.open("a", encoding="utf-8") as log:
            try:
                # In a session of its own: Ctrl-C reaches this process alone, which then lets every training save.
                self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                                env=list_variables() | {"PYTHONUNBUFFERED": "1"},
                                                start_new_session=True)
            except OSError as error:
                raise explain_not_runnable(self.sibling, error) from None
        write_json(self.folder / "process.json", {
            "pid": self.process.pid, "process_start": read_process_start(self.process.pid),
            "machine": identify_machine(), "words": self.words})
        self.asked = 0.0

    def read_note(self) -> dict:
        """What process.json says; nothing where it is missing or cut off."""
        try:
            return read_json(self.folder / "process.json")
        except UserError:
            return {}

    def end_orphan(self) -> None:
        """Let a process of this training save and end whose sweep was killed."""
        note = self.read_note()

        def is_alive() -> bool:
            return note.get("process_start") is not None and note.get("machine") == identify_machine() and \
                read_process_start(note["pid"]) == note["process_start"]
        until = time.monotonic() + GRACE
        while is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(note["pid"], signal.SIGTERM if time.monotonic() < until else signal.SIGKILL)
            time.sleep(POLL)

    def find_run(self) -> Path | None:
        """The newest run folder of this training."""
        found = [path.parent for path in self.group.glob(f"{self.runs}/config.yaml")]
        return max(found, key=lambda folder: folder.name, default=None)

    def find_result(self) -> dict | None:
        """What result.json says; None until this training has finished."""
        run = self.find_run()
        if run is None or self.read_note().get("words") != self.words or not (run / "result.json").exists():
            return None
        return read_json(run / "result.json")

    def read_epochs(self) -> list[tuple[int, float]]:
        """Number, counted from 1, and monitored metric of each epoch that has ended."""
        when, took = self.last_read
        if time.monotonic() - when < 20 * took:  # of a long run the file is long
            return self.epochs
        started, run = time.monotonic(), self.find_run()
        with contextlib.suppress(UserError):  # it is being written, and is read again
            rows = read_history(run / "metrics.jsonl") if run else []
            self.epochs = [(round(row["epoch"]), row[self.monitor]) for row in rows
                           if "perf/epoch_seconds" in row and row.get(self.monitor) is not None]
        self.last_read = (time.monotonic(), time.monotonic() - started)
        return self.epochs

    def describe_last_epoch(self) -> str:
        epochs = self.read_epochs()
        return f"{self.monitor} {epochs[-1][1]:.4f} at epoch {epochs[-1][0]} of {self.planned}" if epochs else \
            "no epoch yet"

    def ask_to_stop(self) -> None:
        """Let the process save and end. One that has been asked and takes too long is killed."""
        first, self.asked = not self.asked, self.asked or time.monotonic()
        if self.process is None or self.process.poll() is not None:
            return
        if first:
            self.process.terminate()
        elif time.monotonic() - self.asked > GRACE:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def has_ended(self) -> bool:
        """Whether the process has ended and does not go on. One that a signal has ended, and that nobody here has asked
        to stop, goes on from its last checkpoint."""
        if self.process is None:
            return True
        status = self.process.poll()
        if status is None:
            if self.asked:
                self.ask_to_stop()
            return False
        if (status < 0 or status > 128) and not self.asked and self.resumes < MOST_RESUMES and \
                self.find_result() is None:
            self.resumes += 1
            say(f"{self.sibling} of {self.group.name} was ended by a signal and goes on")
            self.start()
            return False
        self.last_read = (0.0, 0.0)
        return True

    def explain_failure(self) -> str:
        """Why it ended without a result, and where more is said."""
        return f"{self.read_last_line() or 'it left no message'} (see {self.log})"

    def read_last_line(self) -> str:
        """The last line that its process printed; empty where it printed none."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines() if self.log.exists() else []
        return next((line.removeprefix("error: ") for line in reversed(lines) if line.strip()), "")

    def release(self) -> None:
        if self.lock:
            self.lock.release()


class Task(Protocol):
    """What `run_tasks` runs: a training, and what is to be done with what it finds."""
    training: Training

    def begin(self) -> None: ...
    def look(self) -> None: ...
    def end(self) -> None: ...
    def describe(self) -> str: ...


def run_tasks(take: Callable[[], Task | None], at_once: int) -> None:
    """Run the tasks that `take` returns, `at_once` of them at a time, until it returns None and all have ended.

    `begin` starts a task's training, or leaves it without a process where nothing is left to do; `look` is called while
    it runs, `end` after it. SIGTERM or SIGINT lets the trainings save, and leaves their tasks as they are.

    Raises:
        StoppedError: after such a signal.
    """
    running: list[Task] = []
    request, told = StopRequest(), time.monotonic()
    request.install_handlers()
    try:
        while request.signal is None:
            while len(running) < at_once and request.signal is None and (task := take()):
                running.append(task)
                task.begin()
            if not running:
                return
            for task in list(running):
                if task.training.has_ended():
                    task.end()
                    task.training.release()
                    running.remove(task)
                else:
                    task.look()
            if time.monotonic() - told > NEWS:
                told = time.monotonic()
                for task in running:
                    say(task.describe())
            if all(task.training.process for task in running):
                time.sleep(POLL)
        say(f"stopping: {len(running)} trainings save their state")
        raise StoppedError(f"stopped by {signal.Signals(request.signal).name}; {ADVICE}", request.signal)
    finally:
        for task in running:
            task.training.ask_to_stop()
        while any(not task.training.has_ended() for task in running):
            time.sleep(POLL)
        for task in running:
            task.training.release()
        request.restore_handlers()
