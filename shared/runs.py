"""The run folder: everything that one run was and found, readable without the code that wrote it.

config.yaml         the resolved config
run.json            sibling, git revision, versions, device, sizes, fingerprints of data, split, order, first weights
metrics.jsonl       a row per logged step and per epoch
best.safetensors    weights of the best epoch, in the neutral format
checkpoints/        the framework's own checkpoint of the last epoch, to resume from
predictions.npz     logits, labels and indices of the test images
result.json         the final scores; its presence says that the run has finished
"""

import datetime
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from shared import hardware
from shared.config import REPOSITORY, Config, to_yaml
from shared.errors import UserError


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then move it there: a reader sees the old file or the new, never half."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    write(unfinished)
    os.replace(unfinished, path)


def to_json(content: dict, indent: int | None = None) -> str:
    """JSON text. NaN and infinity become null, since JSON has no word for them."""
    try:
        return json.dumps(content, indent=indent, allow_nan=False)
    except ValueError:
        return json.dumps(json.loads(json.dumps(content), parse_constant=lambda name: None), indent=indent)


def write_json(path: Path, content: dict) -> None:
    write_whole(path, lambda file: file.write_text(to_json(content, indent=2) + "\n"))


def last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that the run in `folder` can go on from. One whose writing was cut off does not count."""
    return next((path for path in sorted(folder.glob("checkpoints/last*")) if path.suffix != ".unfinished"), None)


def git_state() -> dict[str, Any]:
    """Revision of the repository and whether files differ from it; None where this is no git checkout."""
    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(REPOSITORY), *words], capture_output=True, text=True, check=True,
                              timeout=10).stdout.strip()
    try:
        return {"revision": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"revision": None, "dirty": None}


class Run:
    """A run folder while its run goes on. `resumed` says whether it was there before."""

    def __init__(self, folder: Path, config: Config, framework: str, resumed: bool):
        self.folder, self.config, self.framework, self.resumed = folder, config, framework, resumed
        self.name = folder.absolute().name  # absolute, because '.' has no name
        self.checkpoints = folder / "checkpoints"
        self.best_weights = folder / "best.safetensors"
        self.metrics_file = folder / "metrics.jsonl"

    @classmethod
    def start(cls, config: Config, framework: str) -> "Run":
        """Make a new run folder, or find the one that `config.resume` asks for.

        Raises:
            UserError: where the folder cannot be made, or there is nothing to resume.
        """
        group = Path(config.output_dir).expanduser() / config.group
        if config.resume == "auto":
            unfinished = [path.parent for path in group.glob(f"{framework}_seed{config.seed}_*/config.yaml")
                          if not (path.parent / "result.json").exists() and last_checkpoint(path.parent)]
            if unfinished:
                return cls(max(unfinished, key=lambda folder: folder.name), config, framework, resumed=True)
        elif config.resume != "none":
            folder = Path(config.resume).expanduser()
            if not last_checkpoint(folder):
                raise UserError(f"resume={config.resume}: no checkpoint in its checkpoints folder; name a run folder "
                                "that has finished an epoch, or use resume=none")
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
            (folder / "config.yaml").write_text(to_yaml(config))
            return cls(folder, config, framework, resumed=False)
        raise UserError(f"output_dir: {group} has a hundred runs of this second; choose another")

    def describe(self, **facts: Any) -> None:
        """Write run.json: `facts` and what is the same in both siblings."""
        old = read_run_json(self.folder) if self.resumed else {}
        if self.resumed:
            (self.folder / "config.yaml").write_text(to_yaml(self.config))  # it may say more epochs now
            if (self.folder / "result.json").exists():  # whose presence would say that nothing is left to do
                os.replace(self.folder / "result.json", self.folder / "result.before-resume.json")
        content = {"framework": self.framework, "group": self.config.group, "name": self.name,
                   "seed": self.config.seed, "started": datetime.datetime.now(datetime.UTC).isoformat(),
                   "git": git_state(), "versions": hardware.versions(), **facts,
                   "global_batch": self.config.train.batch_size, "epochs": self.config.train.epochs}
        if self.resumed:  # what the run started from does not change with going on
            content |= {name: old[name] for name in ("started", "fingerprints") if name in old}
        write_json(self.folder / "run.json", content)

    def last_checkpoint(self) -> Path | None:
        """The checkpoint that a resumed run goes on from; None for a new run."""
        return last_checkpoint(self.folder) if self.resumed else None

    def finish(self, logits: np.ndarray, index: np.ndarray, label: np.ndarray, result: dict[str, Any]) -> None:
        """Write the test predictions, logits (n, K), index and label (n,), and result.json."""
        def save(path: Path) -> None:
            with path.open("wb") as file:  # a file, because np.savez appends its own ending to a name
                np.savez_compressed(file, index=index, label=label, logits=logits)
        write_whole(self.folder / "predictions.npz", save)
        write_json(self.folder / "result.json", result)


def read_run_json(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "run.json").read_text())
    except (OSError, ValueError):
        raise UserError(f"{folder} is not a run folder: its run.json is missing or damaged") from None
