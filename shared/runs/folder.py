"""The run folder: everything that a run was made with and has found, readable without the code that wrote it.

config.yaml         the whole config
run.json            sibling, git revision, versions, device, sizes, fingerprints of data, split, order, initial weights
metrics.jsonl       a row for each logged step and for each epoch
best.safetensors    the weights of the best epoch, in the neutral format
checkpoints/        the framework's own checkpoint to resume from, last.*, and the one before it, previous.*
predictions.npz     logits, labels and indices of the test images
result.json         the final scores; where it is present, the run has finished
"""

import datetime
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from shared.config import Config, to_yaml
from shared.errors import UserError
from shared.machine.files import find_last_checkpoint, undo_on_failure, write_arrays, write_json, write_whole
from shared.machine.versions import list_versions, read_git_state
from shared.runs.records import read_record
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

    `resumed` says whether the run was begun before. Of the processes that share a run only the `leader` writes to it.
    """

    def __init__(self, folder: Path, config: Config, framework: str, resumed: bool, leader: bool = True):
        self.folder, self.config, self.framework, self.resumed = folder, config, framework, resumed
        self.leader = leader
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
            resumed, folder = received.split(" ", 1)
            return cls(Path(folder), config, framework, resumed == "resumed", leader=False)
        try:
            run = cls.start(config, framework)
        except UserError:
            broadcast("")
            raise
        broadcast(f"{'resumed' if run.resumed else 'new'} {run.folder.absolute()}")
        return run

    @classmethod
    def start(cls, config: Config, framework: str) -> "RunFolder":
        """Make a new run folder, or find the one that `config.resume` names.

        Raises:
            UserError: where the folder cannot be made, or there is nothing to resume.
        """
        group = Path(config.output_dir).expanduser() / config.group
        if config.resume == "auto":
            unfinished = [path.parent for path in group.glob(f"{framework}_seed{config.seed}_*/config.yaml")
                          if not (path.parent / "result.json").exists()]
            if unfinished:
                return cls(max(unfinished, key=lambda folder: folder.name), config, framework, resumed=True)
        elif config.resume != "none":
            folder = Path(config.resume).expanduser()
            if not (folder / "config.yaml").exists():
                raise UserError(f"resume={config.resume}: no checkpoint and no config.yaml there; name a run folder, "
                                "or use resume=none")
            if read_record(folder)["framework"] != framework:
                raise UserError(f"resume={config.resume} is a run of the other sibling; start from its weights with "
                                f"init_from={config.resume}")
            return cls(folder, config, framework, resumed=True)
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
            write_config(folder, config)
            return cls(folder, config, framework, resumed=False)
        raise UserError(f"output_dir: {group} has a hundred runs of this second; choose another")

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
                   "epochs": self.config.train.epochs}
        if self.resumed and "started" in old:
            content["started"] = old["started"]
            old_prints, prints = old.get("fingerprints", {}), {**content.get("fingerprints", {})}
            if old_prints.get("data") != prints.get("data"):
                print("the files of the data set are no longer quite those that this run began with", file=sys.stderr)
            if "initial_weights" in old_prints:
                prints["initial_weights"] = old_prints["initial_weights"]
            content["fingerprints"] = prints
        write_json(self.folder / "run.json", content)

    def find_last_checkpoint(self) -> Path | None:
        """The checkpoint that a resumed run goes on from; None for a new run, or where none was written."""
        return find_last_checkpoint(self.folder) if self.resumed else None

    def finish(self, logits: np.ndarray, index: np.ndarray, label: np.ndarray, result: dict[str, Any]) -> None:
        """Write result.json and the test predictions: logits (n, K) float32, index and label (n,) int64."""
        if not self.leader:
            return
        write_arrays(self.folder / "predictions.npz", index=index, label=label, logits=logits)
        write_json(self.folder / "result.json", result)


def write_config(folder: Path, config: Config) -> None:
    """Write config.yaml. It leaves out `resume`, which says how this process started, not what the experiment is."""
    text = to_yaml(replace(config, resume="none"))
    # As a whole, since other processes may be reading the file.
    write_whole(folder / "config.yaml", lambda file: file.write_text(text, encoding="utf-8"))
