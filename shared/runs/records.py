"""Reading run folders, whose files may be damaged, and choosing among them.

`folder.py`, which writes them, says what is in them.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from shared.config import Config, flatten, read_kept_values, suggest, to_dict
from shared.data.sampling import fingerprint
from shared.errors import UserError, shorten

FRAMEWORKS = ("lightning", "keras")
PLACES = ("output_dir", "resume", "dataset.root")  # keys that say where something is
MOST_VARIED = 3  # keys in the name of a run
VAL = "val_"  # before the names of arrays in predictions.npz that are for the validation images


class Predictions(NamedTuple):
    """What a run says of the test images: index (n,) and label (n,) int64, logits (n, K) float32."""
    index: np.ndarray
    label: np.ndarray
    logits: np.ndarray

    def fingerprint(self) -> str:
        """A hash of which images were evaluated, with which labels, in which order. It leaves out the logits."""
        return fingerprint(self.index.astype(np.int64), self.label.astype(np.int64))


@dataclass(frozen=True)
class SavedRun:
    """What a run folder holds. `config` and `record` (run.json) are `{dotted key: value}`; `history` has the rows of
    metrics.jsonl, by ascending samples; `result` is None while the run is unfinished."""
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

    def get_score(self, name: str) -> float | None:
        """A number of result.json; None where there is no such number."""
        return (self.result or {}).get(name)

    def get_curve(self, metric: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Samples seen, seconds of training, and values of the metric: each (n,) float64, for the n rows that have it.
        """
        rows = [row for row in self.history if row.get(metric) is not None]
        columns = ([row.get(name) for row in rows] for name in ("samples", "time/train_s", metric))
        return tuple(np.array(column, np.float64) for column in columns)

    @cached_property
    def predictions(self) -> Predictions | None:
        """The predictions for the test images; None where there is no file.

        Raises:
            UserError: where the file is damaged.
        """
        return read_predictions(self.folder / "predictions.npz")


def join_predictions(val: dict[str, np.ndarray], test: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a predictions file: those for the test images by their names, and val_NAME for validation images.
    """
    return {**test, **{f"{VAL}{name}": array for name, array in val.items()}}


def read_predictions(path: Path, prefix: str = "") -> Predictions | None:
    """The predictions for the test images in `path` or, with VAL as the `prefix`, for the validation images.

    None where there is no such file, or no such part in it: runs of an older version kept the test images' alone.

    Raises:
        UserError: where the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if prefix and f"{prefix}logits" not in arrays:
                return None
            found = Predictions(*(arrays[f"{prefix}{name}"] for name in Predictions._fields))
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise UserError(f"{path}: cannot be read ({error}); expected index, label and logits") from None
    count = len(found.label)
    if not (count and found.index.shape == found.label.shape == (count,) == found.logits.shape[:1]
            and found.logits.ndim == 2):
        raise UserError(f"{path}: index {found.index.shape}, label {found.label.shape} and logits "
                        f"{found.logits.shape} do not belong together; expected (n,), (n,) and (n, K)")
    if not 0 <= found.label.min() <= found.label.max() < found.logits.shape[1]:
        raise UserError(f"{path}: labels from {found.label.min()} to {found.label.max()} for logits of "
                        f"{found.logits.shape[1]} classes; restore the file, or write it anew with evaluate.py")
    return found


def read_run(folder: Path) -> SavedRun:
    """Read the run in `folder`.

    Raises:
        UserError: where it is no run folder, or a file in it is damaged.
    """
    missing = [name for name in ("config.yaml", "run.json") if not os.path.isfile(folder / name)]
    if missing:
        raise UserError(f"{folder} is not a run folder: " + (f"it has no {missing[0]}" if os.path.isdir(folder) else
                        "there is no such folder") + "; name one such as runs/quickstart/lightning_seed0_...")
    record = read_record(folder)
    # The values are not checked against the schema, which would refuse the data set's folder of another machine.
    # A key that was added since the run was made has its default: that is how the run behaved.
    config = flatten(to_dict(Config())) | read_kept_values(folder / "config.yaml")
    result = read_json(folder / "result.json") if (folder / "result.json").exists() else None
    for name, value in (result or {}).items():
        if "/" in name and value is not None and not is_number(value):
            raise UserError(f"{folder / 'result.json'}: {name} is {value!r}; expected a number")
    return SavedRun(folder, record["framework"], record.get("group") or folder.resolve().parent.name,
                    folder.resolve().name, record["seed"], record["started"], config, flatten(record),
                    read_history(folder / "metrics.jsonl"), result)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises `UserError` where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON: {error}; delete the run or restore the file") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds {type(content).__name__}; expected an object of names and values")
    return content


def read_record(folder: Path) -> dict[str, Any]:
    """The content of run.json. Raises `UserError` where framework, seed or time of start are missing or wrong."""
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
    """The rows of metrics.jsonl by ascending samples; of rows with the same samples and the same names the last one.

    A killed run can leave a last line that is cut short. It is passed over.

    Raises:
        UserError: where another line is not a row of numbers.
    """
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8") as file:
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


def count_finished_epochs(folder: Path) -> int:
    """How many epochs the run in `folder` has had, as metrics.jsonl says: the rows of whole epochs tell their speed."""
    return max((round(row["epoch"]) for row in read_history(folder / "metrics.jsonl")
                if "perf/epoch_seconds" in row and "epoch" in row), default=0)


class FinishedRun(NamedTuple):
    """What run.json says of a finished run. The order of the fields makes runs sort by the time of their start."""
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
    if not os.path.isdir(output_dir):
        raise UserError(f"--output-dir {output_dir} is not a folder; train first with: make train")
    if group is not None and not os.path.isdir(output_dir / group):
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


def select_newest_runs(runs: Iterable[Any], by: Callable[[Any], Any]) -> list[Any]:
    """The newest run of each group of runs for which `by` returns the same."""
    return list({by(run): run for run in sorted(runs, key=lambda run: (run.started, run.name))}.values())


def list_varied_keys(runs: list[SavedRun]) -> list[str]:
    """The keys of the config that do not have the same value in all runs, without those that say where something is."""
    return [key for key in dict.fromkeys(key for run in runs for key in run.config) if key not in PLACES
            and any(run.config.get(key) != runs[0].config.get(key) for run in runs)]


def label_runs(runs: list[SavedRun]) -> list[str]:
    """The shortest names that differ for all runs: framework, then with the seed, then with the keys that vary where
    these are few, then the folder's name, then more."""
    varied = list_varied_keys(runs)
    few = varied if len(varied) <= MOST_VARIED else []

    def name_values(run: SavedRun) -> str:
        return shorten(" ".join([run.framework, *(f"{key}={run.config.get(key)}" for key in few)]))
    for name in (lambda run: run.framework, lambda run: f"{run.framework} seed {run.seed}", name_values,
                 lambda run: run.name, lambda run: f"{run.group}/{run.name}"):
        names = [name(run) for run in runs]
        if len(set(names)) == len(runs):
            return names
    return [str(run.folder) for run in runs]
