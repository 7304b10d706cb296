"""The run folder: everything that a run was made with and has found, readable without the code that wrote it.

config.yaml         the whole config
run.json            sibling, git revision, versions, device, sizes, fingerprints of data, split, order, initial weights
metrics.jsonl       a row for each logged step and for each epoch
best.safetensors    the weights of the best epoch, in the neutral format
checkpoints/        the framework's own checkpoint to resume from, last.*, and the one before it, previous.*
predictions.npz     logits, labels and indices of the test images and, called val_*, of the validation images
result.json         the final scores; where it is present, the run has finished
scores.json         further scores of the predictions
per_class.csv       those of each class; two pictures are beside it, confusion.png and reliability.png
.lock, .holder.json which process the folder belongs to, see lock.py
"""

import datetime
import os
import sys
import weakref
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from shared.config import Config, to_yaml
from shared.errors import UserError
from shared.machine.console import say
from shared.machine.files import (
    expand_home,
    find_last_checkpoint,
    undo_on_failure,
    write_arrays,
    write_json,
    write_whole,
)
from shared.machine.versions import list_versions, read_git_state
from shared.runs.lock import RunLock, UnavailableError
from shared.runs.records import count_finished_epochs, join_predictions, read_json, read_record
from shared.runs.resume import extract_experiment, find_changed_keys


def write_checkpoint(path: Path, write: Callable[[Path], object], leader: bool = True) -> None:
    """Write a file as `write_whole` does, and keep the one that was at `path` beside it as previous.*.

    Where several processes call this, all take part in `write`, and the `leader` alone moves the files.

    Raises:
        UserError: where the disk is full or may not be written to.
    """
    unfinished = path.with_name(f"{path.name}.unfinished")
    with undo_on_failure(path, unfinished):
        write(unfinished)
        if leader and path.exists():
            os.replace(path, path.with_stem("previous"))
        if leader:
            os.replace(unfinished, path)


def explain_bad_checkpoint(path: Path, reason: str) -> UserError:
    """The error for a checkpoint that is damaged or of another run. It offers the one before it, if there is one."""
    previous = path.with_stem("previous")
    if path != previous and previous.exists():
        way_out = f"delete it to go on from {previous.name} beside it"
    else:
        way_out = "start from the best weights with init_from=, or train anew with resume=none"
    return UserError(f"{path} is damaged or no checkpoint of this run ({reason}); {way_out}")


class RunFolder:
    """The folder of a run in progress.

    `resumed` says whether the run was begun before, and `is_done` that it has had more epochs than it is to have, so
    that nothing is left to do. Of the processes that share a run only the `leader` writes to it, and holds its `lock`.
    """

    def __init__(self, folder: Path, config: Config, framework: str, resumed: bool, leader: bool = True,
                 is_done: bool = False, lock: RunLock | None = None):
        self.folder, self.config, self.framework, self.resumed = folder, config, framework, resumed
        self.leader, self.is_done, self.lock = leader, is_done, lock
        if lock:  # where an exception comes before the training, whose end lets go of the folder
            weakref.finalize(self, lock.release)
        self.record: dict[str, Any] = {}  # the content of run.json, in the leader once it is written
        self.name = folder.absolute().name  # absolute, because '.' has no name
        self.checkpoints = folder / "checkpoints"
        self.best_weights = folder / "best.safetensors"
        self.metrics_file = folder / "metrics.jsonl"

    @classmethod
    def start_together(cls, config: Config, framework: str, leader: bool,
                       broadcast: Callable[[str], str]) -> "RunFolder":
        """Call `start` in the leading process, and let the other processes of the run join its folder.

        Every process calls `broadcast` once; it returns the leader's text in all of them.

        Raises:
            UserError: as `start` does, in the leading process; the others exit.
        """
        if not leader:
            received = broadcast("")
            if not received:  # the leader has failed and says why
                sys.exit(2)
            state, folder = received.split(" ", 1)
            return cls(Path(folder), config, framework, state != "new", leader=False, is_done=state == "done")
        try:
            run = cls.start(config, framework)
        except UserError:
            broadcast("")
            raise
        broadcast(f"{'done' if run.is_done else 'resumed' if run.resumed else 'new'} {run.folder.absolute()}")
        return run

    @classmethod
    def start(cls, config: Config, framework: str) -> "RunFolder":
        """Make a new run folder, or find the one that `config.resume` names, and take hold of it.

        Raises:
            UserError: where the folder cannot be made, there is nothing to resume, or another process has it.
        """
        group = expand_home(config.output_dir) / config.group
        if config.resume == "auto":
            found = [path.parent for path in group.glob(f"{framework}_seed{config.seed}_*/config.yaml")]
            for folder in sorted(found, key=lambda folder: folder.name, reverse=True):
                if run := cls.take_unfinished(folder, config, framework):
                    return run
        elif config.resume != "none":
            folder = expand_home(config.resume)
            if not (folder / "config.yaml").exists():
                raise UserError(f"resume={config.resume}: no checkpoint and no config.yaml there; name a run folder, "
                                "or use resume=none")
            if read_record(folder)["framework"] != framework:
                raise UserError(f"resume={config.resume} is a run of the other sibling; start from its weights with "
                                f"init_from={config.resume}")
            return cls.find_done(folder, config, framework) or cls(folder, config, framework, resumed=True,
                                                                   lock=RunLock.acquire(folder))
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        for attempt in range(100):
            folder = group / f"{framework}_seed{config.seed}_{stamp}{f'-{attempt}' if attempt else ''}"
            try:
                (folder / "checkpoints").mkdir(parents=True)
            except FileExistsError:
                if group.is_dir():
                    continue
                raise UserError(f"output_dir: {group} cannot be made, a file is in the way; choose another") from None
            except OSError as error:
                raise UserError(f"output_dir: {folder} cannot be made ({error.strerror}); choose another") from None
            lock = RunLock.acquire(folder)  # before there is a config.yaml, by which resume=auto finds it
            write_config(folder, config)
            return cls(folder, config, framework, resumed=False, lock=lock)
        raise UserError(f"output_dir: {group} has a hundred runs of this second; choose another")

    @classmethod
    def take_unfinished(cls, folder: Path, config: Config, framework: str) -> "RunFolder | None":
        """The run in `folder`, for `resume=auto` to go on with; None where it has finished or cannot be had."""
        if (folder / "result.json").exists():
            return None
        try:
            lock = RunLock.acquire(folder)
        except UnavailableError as error:
            say(f"passed over: {error.reason}")
            return None
        has_just_finished = (folder / "result.json").exists()
        done = None if has_just_finished else cls.find_done(folder, config, framework)
        if done or has_just_finished:
            lock.release()
            return done
        return cls(folder, config, framework, resumed=True, lock=lock)

    @classmethod
    def find_done(cls, folder: Path, config: Config, framework: str) -> "RunFolder | None":
        """The run in `folder` where it has had more epochs than the config asks for; says so, and changes nothing."""
        done = count_finished_epochs(folder)
        if done <= config.train.epochs:
            return None
        say(f"{folder} has had {done} epochs, so train.epochs={config.train.epochs} leaves nothing to do and changes "
            f"nothing; ask for more epochs, or score it with evaluate.py {folder}")
        return cls(folder, config, framework, resumed=True, is_done=True)

    def read_result(self) -> dict[str, Any]:
        """What result.json holds; nothing where the run is unfinished."""
        file = self.folder / "result.json"
        return read_json(file) if file.exists() else {}

    def require_hold(self) -> None:
        """Raise `UserError` where another process has taken the folder over, which both would write to otherwise."""
        if self.lock and self.lock.lost:
            raise UserError(f"{self.folder} was taken over by another process, because this one showed no sign of life "
                            "for too long; nothing more is written here, and the other one goes on")

    def release(self) -> None:
        """Let go of the folder, for the next process or the next training of this one."""
        if self.lock:
            self.lock.release()

    def write_record(self, **facts: Any) -> None:
        """Write run.json: the given `facts`, and what this class knows itself.

        Raises:
            UserError: where a resumed run would go on as another experiment than it began as.
        """
        # A run that was killed before it wrote the file has no facts that the new ones could differ from.
        old = read_record(self.folder) if self.resumed and (self.folder / "run.json").exists() else {}
        facts["global_batch"] = self.config.train.batch_size
        before, now = extract_experiment(old), extract_experiment(facts)
        changed = [name for name in before if name in now and before[name] != now[name]]
        if self.resumed:
            changed += find_changed_keys(self.folder, self.config)
        if changed:
            raise UserError(f"{self.folder} began with another {', '.join(changed)}; resume it with what it had, or "
                            "start anew with resume=none")
        if not self.leader:
            return
        if self.resumed:
            write_config(self.folder, self.config)  # the number of epochs, among others, may have changed
            if (self.folder / "result.json").exists():  # while it is there, the run counts as finished
                os.replace(self.folder / "result.json", self.folder / "result.before-resume.json")
        content = {"framework": self.framework, "group": self.config.group, "name": self.name,
                   "seed": self.config.seed, "started": datetime.datetime.now(datetime.UTC).isoformat(),
                   "git": read_git_state(), "versions": list_versions(), **facts,
                   "epochs": self.config.train.epochs, "segments": self.list_segments(old)}
        if self.resumed and "started" in old:
            content["started"] = old["started"]
            old_prints, prints = old.get("fingerprints", {}), {**content.get("fingerprints", {})}
            if old_prints.get("data") != prints.get("data"):
                print("the files of the data set are no longer quite those that this run began with", file=sys.stderr)
            if "initial_weights" in old_prints:
                prints["initial_weights"] = old_prints["initial_weights"]
            content["fingerprints"] = prints
        self.record = content
        write_json(self.folder / "run.json", content)

    def list_segments(self, old: dict[str, Any]) -> list[dict[str, Any]]:
        """The stretches of epochs for each of which one schedule was planned, so far: of a new run a single one, of a
        resumed run those of its `old` run.json. Those of older runs recorded none, and had one."""
        epochs = old.get("epochs", self.config.train.epochs)
        return old.get("segments") or [{"from_epoch": 0, "epochs": epochs, **asdict(self.config.schedule)}]

    def write_segments(self, segments: list[dict[str, Any]]) -> None:
        """Write what `list_segments` returned, with what has become of it, into run.json."""
        self.record["segments"] = segments
        write_json(self.folder / "run.json", self.record)

    def find_last_checkpoint(self) -> Path | None:
        """The checkpoint that a resumed run goes on from; None for a new run, or where none was written."""
        return find_last_checkpoint(self.folder) if self.resumed else None

    def finish(self, val: dict[str, np.ndarray], test: dict[str, np.ndarray], result: dict[str, Any]) -> None:
        """Write result.json and the predictions, each of them logits (n, K) float32, index and label (n,) int64."""
        if not self.leader:
            return
        self.require_hold()
        write_arrays(self.folder / "predictions.npz", **join_predictions(val, test))
        write_json(self.folder / "result.json", result)


def write_config(folder: Path, config: Config) -> None:
    """Write config.yaml. It leaves out `resume`, which says how this process started, not what the experiment is."""
    text = to_yaml(replace(config, resume="none"))
    # As a whole, since other processes may be reading the file.
    write_whole(folder / "config.yaml", lambda file: file.write_text(text, encoding="utf-8"))
