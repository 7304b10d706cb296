"""The run folder: everything that one run was and found, readable without the code that wrote it.

config.yaml         the resolved config
run.json            sibling, git revision, versions, device, sizes, fingerprints of data, split, order, first weights
metrics.jsonl       a row per logged step and per epoch
best.safetensors    weights of the best epoch, in the neutral format
checkpoints/        the framework's own checkpoint to resume from, last.*, and the one before it, previous.*
predictions.npz     logits, labels and indices of the test images
result.json         the final scores; its presence says that the run has finished
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
    """Like `write_whole`, and keeps the file that was at `path` as `previous`, beside it.

    Where several processes write together, the `leader` alone moves the files. Raises like `write_whole`.
    """
    unfinished = path.with_name(f"{path.name}.unfinished")
    with undo_on_failure(path, unfinished):
        write(unfinished)
        if leader and path.exists():
            os.replace(path, path.with_stem("previous"))
        if leader:
            os.replace(unfinished, path)


def explain_bad_checkpoint(path: Path, reason: str) -> UserError:
    """The error that names a checkpoint that is damaged or of another run, and offers the one before it."""
    previous = path.with_stem("previous")
    if path != previous and previous.exists():
        way_out = f"delete it to go on from {previous.name} beside it"
    else:
        way_out = "start from the best weights with init_from=, or train anew with resume=none"
    return UserError(f"{path} is damaged or no checkpoint of this run ({reason}); {way_out}")


class RunFolder:
    """A run folder while its run goes on. `resumed` says whether it was there before, `leader` whether this process,
    of all that share the run, is the one that writes to it."""

    def __init__(self, folder: Path, config: Config, framework: str, resumed: bool, leader: bool = True):
        self.folder, self.config, self.framework, self.resumed = folder, config, framework, resumed
        self.leader = leader
        self.name = folder.absolute().name  # absolute, because '.' has no name
        self.checkpoints = folder / "checkpoints"
        self.best_weights = folder / "best.safetensors"
        self.metrics_file = folder / "metrics.jsonl"

    @classmethod
    def start_together(cls, config: Config, framework: str, leader: bool, agree: Callable[[str], str]) -> "RunFolder":
        """`start` in the leading process; the others, told by `agree`, join its folder.

        `agree` returns the leader's text in every process, whatever text the others call it with.
        """
        if not leader:
            told = agree("")
            if not told:  # the leader has said why
                sys.exit(2)
            resumed, folder = told.split(" ", 1)
            return cls(Path(folder), config, framework, resumed == "resumed", leader=False)
        try:
            run = cls.start(config, framework)
        except UserError:
            agree("")
            raise
        agree(f"{'resumed' if run.resumed else 'new'} {run.folder.absolute()}")
        return run

    @classmethod
    def start(cls, config: Config, framework: str) -> "RunFolder":
        """Make a new run folder, or find the one that `config.resume` asks for.

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

    def describe(self, **facts: Any) -> None:
        """Write run.json: `facts` and what is the same in both siblings.

        Raises:
            UserError: where a resumed run would not be the experiment that it began as.
        """
        # A run that was killed before it could write the file has nothing to differ from.
        old = read_record(self.folder) if self.resumed and (self.folder / "run.json").exists() else {}
        facts["global_batch"] = self.config.train.batch_size
        begun, now = (extract_experiment(content) for content in (old, facts))
        changed = [name for name in begun if name in now and begun[name] != now[name]]
        if self.resumed:
            changed += find_changed_keys(self.folder, self.config)
        if changed:
            raise UserError(f"{self.folder} began with another {', '.join(changed)}; resume it with what it had, or "
                            "start anew with resume=none")
        if not self.leader:
            return
        if self.resumed:
            write_config(self.folder, self.config)  # it may say more epochs now
            if (self.folder / "result.json").exists():  # whose presence would say that nothing is left to do
                os.replace(self.folder / "result.json", self.folder / "result.before-resume.json")
        content = {"framework": self.framework, "group": self.config.group, "name": self.name,
                   "seed": self.config.seed, "started": datetime.datetime.now(datetime.UTC).isoformat(),
                   "git": read_git_state(), "versions": list_versions(), **facts,
                   "epochs": self.config.train.epochs}
        if self.resumed and "started" in old:
            content["started"] = old["started"]
            before, now = old.get("fingerprints", {}), content.get("fingerprints", {})
            if before.get("data") != now.get("data"):
                print("the files of the data set are no longer quite those that this run began with", file=sys.stderr)
            content["fingerprints"] = now | {name: before[name] for name in ("initial_weights",) if name in before}
        write_json(self.folder / "run.json", content)

    def find_last_checkpoint(self) -> Path | None:
        """The checkpoint that a resumed run goes on from; None for a new run."""
        return find_last_checkpoint(self.folder) if self.resumed else None

    def finish(self, logits: np.ndarray, index: np.ndarray, label: np.ndarray, result: dict[str, Any]) -> None:
        """Write the test predictions, logits (n, K), index and label (n,), and result.json."""
        if not self.leader:
            return
        write_arrays(self.folder / "predictions.npz", index=index, label=label, logits=logits)
        write_json(self.folder / "result.json", result)


def write_config(folder: Path, config: Config) -> None:
    """Write config.yaml. `resume` is left out: it says how this process started, not what the experiment is."""
    text = to_yaml(replace(config, resume="none"))
    write_whole(folder / "config.yaml", lambda file: file.write_text(text))  # other processes may be reading it
