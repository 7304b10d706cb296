"""Run folders as their reader sees them: one at a time, checked, and which of many to look at.

What lies in them is described where it is written, in `folder.py`.
"""

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from shared.config import Config, flatten, read_yaml, suggest, to_dict
from shared.datasets.sampling import fingerprint
from shared.errors import UserError

FRAMEWORKS = ("lightning", "keras")


class Predictions(NamedTuple):
    """Of the test images: index (n,), label (n,) int64, logits (n, K) float32."""
    index: np.ndarray
    label: np.ndarray
    logits: np.ndarray

    def fingerprint(self) -> str:
        """Says which images were evaluated against which labels, in which order; logits do not enter."""
        return fingerprint(self.index.astype(np.int64), self.label.astype(np.int64))


@dataclass(frozen=True)
class SavedRun:
    """What a run folder holds. `config` and `record` (run.json) are `{dotted key: value}`; `history` has the rows of
    metrics.jsonl by ascending samples; `result` is None while the run is unfinished."""
    folder: Path
    framework: str
    group: str
    name: str
    seed: int
    started: str
    config: dict[str, Any]
    record: dict[str, Any]
    history: list[dict[str, float]]
    result: dict[str, Any] | None

    @property
    def finished(self) -> bool:
        return self.result is not None

    def score(self, name: str) -> float | None:
        """A number of result.json; None where it is not there."""
        return (self.result or {}).get(name)

    def curve(self, metric: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Samples seen, training seconds and the metric's values, each (rows,) float64."""
        rows = [row for row in self.history if row.get(metric) is not None]
        columns = ([row.get(name) for row in rows] for name in ("samples", "time/train_s", metric))
        return tuple(np.array(column, np.float64) for column in columns)

    @cached_property
    def predictions(self) -> Predictions | None:
        """None where the run left none. Raises `UserError` where the file is damaged."""
        path = self.folder / "predictions.npz"
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:
                found = Predictions(arrays["index"], arrays["label"], arrays["logits"])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise UserError(f"{path}: cannot be read ({error}); expected index, label and logits") from None
        count = len(found.label)
        if not (count and found.index.shape == found.label.shape == (count,) == found.logits.shape[:1]
                and found.logits.ndim == 2):
            raise UserError(f"{path}: index {found.index.shape}, label {found.label.shape} and logits "
                            f"{found.logits.shape} do not belong together; expected (n,), (n,) and (n, K)")
        return found


def read_run(folder: Path) -> SavedRun:
    """The run in `folder`.

    Raises:
        UserError: where it is no run folder, or a file in it is damaged.
    """
    if not (folder / "run.json").is_file() or not (folder / "config.yaml").is_file():
        missing = "run.json" if (folder / "config.yaml").is_file() else "config.yaml"
        raise UserError(f"{folder} is not a run folder: " + (f"it has no {missing}" if folder.is_dir() else
                        "there is no such folder") + "; name one such as runs/quickstart/lightning_seed0_...")
    from omegaconf import OmegaConf

    record = read_record(folder)
    # Only merged over the schema would a config be checked, and a data set's folder of another machine refused.
    # A key that is younger than the run had no other value than its default.
    config = flatten(to_dict(Config())) | flatten(OmegaConf.to_container(read_yaml(folder / "config.yaml")))
    result = read_json(folder / "result.json") if (folder / "result.json").exists() else None
    for name, value in (result or {}).items():
        if "/" in name and value is not None and not is_number(value):
            raise UserError(f"{folder / 'result.json'}: {name} is {value!r}; expected a number")
    return SavedRun(folder, record["framework"], record.get("group") or folder.resolve().parent.name,
               folder.resolve().name, record["seed"], record["started"], config, flatten(record),
               read_history(folder / "metrics.jsonl"), result)


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}; delete the run or restore the file") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds {type(content).__name__}; expected an object of names and values")
    return content


def read_record(folder: Path) -> dict[str, Any]:
    """run.json, with the fields that name a run checked."""
    record = read_json(folder / "run.json")
    for name, valid, expected in (("framework", record.get("framework") in FRAMEWORKS, " or ".join(FRAMEWORKS)),
                                  ("seed", type(record.get("seed")) is int, "a whole number"),
                                  ("started", isinstance(record.get("started"), str), "a time")):
        if not valid:
            raise UserError(f"{folder / 'run.json'}: {name} is {record.get(name)!r}; expected {expected}")
    return record


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_history(path: Path) -> list[dict[str, float]]:
    """Rows of metrics.jsonl by ascending samples; of rows with the same samples and names the last one.

    A last line without its line end is what a killed run leaves, and is passed over where it cannot be read.
    """
    if not path.exists():
        return []
    try:
        with path.open() as file:
            lines = list(file)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    rows = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise UserError(f"{path}: line {number} is not valid JSON: {error}; delete the line") from None
        if not (isinstance(row, dict) and all(is_number(row.get(name)) for name in ("samples", "time/train_s"))
                and all(value is None or is_number(value) for value in row.values())):
            raise UserError(f"{path}: line {number} is not a row of numbers with samples and time/train_s; "
                            "delete the line")
        rows[row["samples"], frozenset(row)] = row
    return sorted(rows.values(), key=lambda row: row["samples"])


class FinishedRun(NamedTuple):
    """A finished run, known by its run.json alone."""
    started: str
    name: str
    framework: str
    seed: int
    folder: Path


def find_finished_runs(output_dir: Path, group: str | None = None,
                       frameworks: tuple[str, ...] = FRAMEWORKS) -> list[FinishedRun]:
    """The finished runs of `frameworks` in `group`, else in the group with the newest of them, oldest first.

    Raises:
        UserError: where there is none.
    """
    if not output_dir.is_dir():
        raise UserError(f"--output-dir {output_dir} is not a folder; train first with: make train")
    if group is not None and not (output_dir / group).is_dir():
        groups = sorted(path.name for path in output_dir.iterdir() if path.is_dir())
        hint = suggest(group, groups) if groups else ""
        raise UserError(f"--group {group}: no such group in {output_dir}; "
                        + (hint if hint.startswith("did") else f"there are: {', '.join(groups) or 'none'}"))
    found = []
    for path in output_dir.glob("*/*/result.json") if group is None else (output_dir / group).glob("*/result.json"):
        try:
            record = read_record(path.parent)
        except UserError as error:
            print(f"passed over: {error}", file=sys.stderr)
            continue
        if record["framework"] in frameworks:
            found.append(FinishedRun(record["started"], path.parent.name, record["framework"], record["seed"],
                                     path.parent))
    if not found:
        raise UserError(f"no finished run in {output_dir / (group or '')}; train first with: "
                        "make train, or name the folders of unfinished runs")
    found.sort()
    return [run for run in found if run.folder.parent == found[-1].folder.parent]


def select_newest(runs: Iterable[Any], by: Callable[[Any], Any]) -> list[Any]:
    """Of runs that agree in `by` the one that started last."""
    return list({by(run): run for run in sorted(runs, key=lambda run: (run.started, run.name))}.values())


def label_runs(runs: list[SavedRun]) -> list[str]:
    """The shortest names that keep the runs apart."""
    for name in (lambda run: run.framework, lambda run: f"{run.framework} seed {run.seed}", lambda run: run.name,
                 lambda run: f"{run.group}/{run.name}"):
        names = [name(run) for run in runs]
        if len(set(names)) == len(runs):
            return names
    return [str(run.folder) for run in runs]
