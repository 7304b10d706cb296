"""The run folder: everything that one run was and found, readable without the code that wrote it.

config.yaml         the resolved config
run.json            sibling, git revision, versions, device, sizes, fingerprints of data, split, order, first weights
metrics.jsonl       a row per logged step and per epoch
best.safetensors    weights of the best epoch, in the neutral format
checkpoints/        the framework's own checkpoint to resume from, last.*, and the one before it, previous.*
predictions.npz     logits, labels and indices of the test images
result.json         the final scores; its presence says that the run has finished
"""

import contextlib
import datetime
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from shared import hardware
from shared.config import REPOSITORY, Config, flat, read_yaml, to_dict, to_yaml
from shared.errors import UserError


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then move it there: a reader sees the old file or the new, never half.

    Raises:
        UserError: where the disk is full or may not be written to; what was there before is still whole.
    """
    unfinished = path.with_name(f"{path.name}.unfinished")
    with explained(path, unfinished):
        write(unfinished)
        os.replace(unfinished, path)


@contextlib.contextmanager
def explained(path: Path, unfinished: Path) -> Iterator[None]:
    """Remove `unfinished` and raise `UserError` where `path` cannot be written."""
    try:
        yield
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written ({error.strerror or error}); what was there before is whole; make "
                        "room or choose another output_dir, and go on with resume=auto") from None


def append(path: Path, line: str) -> None:
    """Add a line to a file. Raises `UserError` where that cannot be done; a line cut short is dropped on resuming."""
    try:
        with path.open("a") as file:
            file.write(line)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}); make room or choose another "
                        "output_dir, and go on with resume=auto") from None


def to_json(content: dict, indent: int | None = None) -> str:
    """JSON text. NaN and infinity become null, since JSON has no word for them."""
    try:
        return json.dumps(content, indent=indent, allow_nan=False)
    except ValueError:
        return json.dumps(json.loads(json.dumps(content), parse_constant=lambda name: None), indent=indent)


def write_json(path: Path, content: dict) -> None:
    write_whole(path, lambda file: file.write_text(to_json(content, indent=2) + "\n"))


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    def save(unfinished: Path) -> None:
        with unfinished.open("wb") as file:  # a file, because np.savez appends its own ending to a name
            np.savez_compressed(file, **arrays)
    write_whole(path, save)


def write_checkpoint(path: Path, write: Callable[[Path], object], leader: bool = True) -> None:
    """Like `write_whole`, and keeps the file that was at `path` as `previous`, beside it.

    Where several processes write together, the `leader` alone moves the files. Raises like `write_whole`.
    """
    unfinished = path.with_name(f"{path.name}.unfinished")
    with explained(path, unfinished):
        write(unfinished)
        if leader and path.exists():
            os.replace(path, path.with_stem("previous"))
        if leader:
            os.replace(unfinished, path)


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that the run in `folder` can go on from. One whose writing was cut off does not count."""
    found = [path for name in ("last", "previous") for path in sorted(folder.glob(f"checkpoints/{name}.*"))]
    return next((path for path in found if path.suffix != ".unfinished"), None)


def refuse_checkpoint(path: Path, reason: str) -> UserError:
    """The error that names a checkpoint that is damaged or of another run, and offers the one before it."""
    previous = path.with_stem("previous")
    if path != previous and previous.exists():
        way_out = f"delete it to go on from {previous.name} beside it"
    else:
        way_out = "start from the best weights with init_from=, or train anew with resume=none"
    return UserError(f"{path} is damaged or no checkpoint of this run ({reason}); {way_out}")


def git_state() -> dict[str, Any]:
    """Revision of the repository and whether files differ from it; None where this is no git checkout."""
    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(REPOSITORY), *words], capture_output=True, text=True, check=True,
                              timeout=10).stdout.strip()
    try:
        return {"revision": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"revision": None, "dirty": None}


# What a resumed run may do otherwise than it began: how far, by what machine and under whose eyes it goes on.
CHANGEABLE = ("experiment", "output_dir", "resume", "dataset.root", "dataset.on_bad_image",
              "model.gradient_checkpointing", "train.epochs", "train.accumulate", "train.eval_batch_size",
              "train.checkpoint_every_steps")
CHANGEABLE_SECTIONS = ("hardware.", "tracking.", "debug.")


class Run:
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
    def start_together(cls, config: Config, framework: str, leader: bool, agree: Callable[[str], str]) -> "Run":
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
    def start(cls, config: Config, framework: str) -> "Run":
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
            if read_run_json(folder)["framework"] != framework:
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
        old = read_run_json(self.folder) if self.resumed and (self.folder / "run.json").exists() else {}
        facts["global_batch"] = self.config.train.batch_size
        begun, now = (experiment_of(content) for content in (old, facts))
        changed = [name for name in begun if name in now and begun[name] != now[name]]
        if self.resumed:
            changed += changed_keys(self.folder, self.config)
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
                   "git": git_state(), "versions": hardware.versions(), **facts,
                   "epochs": self.config.train.epochs}
        if self.resumed and "started" in old:
            content["started"] = old["started"]
            before, now = old.get("fingerprints", {}), content.get("fingerprints", {})
            if before.get("data") != now.get("data"):
                print("the files of the data set are no longer quite those that this run began with", file=sys.stderr)
            content["fingerprints"] = now | {name: before[name] for name in ("initial_weights",) if name in before}
        write_json(self.folder / "run.json", content)

    def last_checkpoint(self) -> Path | None:
        """The checkpoint that a resumed run goes on from; None for a new run."""
        return last_checkpoint(self.folder) if self.resumed else None

    def finish(self, logits: np.ndarray, index: np.ndarray, label: np.ndarray, result: dict[str, Any]) -> None:
        """Write the test predictions, logits (n, K), index and label (n,), and result.json."""
        if not self.leader:
            return
        write_arrays(self.folder / "predictions.npz", index=index, label=label, logits=logits)
        write_json(self.folder / "result.json", result)


def write_config(folder: Path, config: Config) -> None:
    """Without what this start of the run resumed, which is no matter of the experiment and a path from somewhere."""
    text = to_yaml(replace(config, resume="none"))
    write_whole(folder / "config.yaml", lambda file: file.write_text(text))  # other processes may be reading it


def changed_keys(folder: Path, config: Config) -> list[str]:
    """The keys that differ from those that the run in `folder` began with, out of those that must not."""
    from omegaconf import OmegaConf

    old, new = flat(OmegaConf.to_container(read_yaml(folder / "config.yaml"))), flat(to_dict(config))
    return [name for name in new if name in old and old[name] != new[name]
            and name not in CHANGEABLE and not name.startswith(CHANGEABLE_SECTIONS)]


def experiment_of(facts: dict[str, Any]) -> dict[str, Any]:
    """What a resumed run must have in common with its beginning, out of the facts of run.json.

    Test images are not among it: a run that cannot read one goes on once the file is repaired, removed or skipped.
    """
    names = ("global_batch", "steps_per_epoch", "classes", "precision")
    same = {name: facts[name] for name in names if name in facts}
    for what, parts in (("sizes", ("train", "val")), ("fingerprints", ("split", "order"))):
        same |= {f"{part} {what.removesuffix('s')}": facts[what][part] for part in parts if part in facts.get(what, {})}
    return same


def read_run_json(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "run.json").read_text())
    except (OSError, ValueError):
        raise UserError(f"{folder} is not a run folder: its run.json is missing or damaged") from None
