"""What a study has found, read from its run folders: small enough to be committed, unlike those."""

import subprocess
from collections.abc import Iterable
from typing import Any

from shared.config import Config, flatten, to_dict
from shared.errors import UserError
from shared.machine.console import say
from shared.machine.files import write_json
from shared.machine.interpreters import list_variables, require_interpreter
from shared.runs.records import PLACES, SavedRun, read_json, read_run
from shared.scores.summary import compute_interval
from shared.training.sweep.grid import Point
from shared.training.sweep.training import Training

PACKAGES = ("python", "torch", "lightning", "tensorflow", "keras")
# Of every study, whatever its keys are: the places, what a row says itself, and what changes no number.
UNTOLD = (*PLACES, "experiment", "model.name", "tracking.mode")


def collect_study(points: list[Point], words: list[str], note: str) -> dict[str, Any]:
    """The study as study.json keeps it: a row for each of the points whose training has finished, and what they have in
    common. `words` are those of its command line.

    Raises:
        UserError: where none has finished.
    """
    rows, runs, left_out = [], [], []
    for point in points:
        name = " ".join([point.config.model.name, *(value for value in point.values.split()
                                                    if not value.startswith("model.name="))])
        training = Training(point.sibling, point.config, list(point.words))
        try:
            if training.find_result() is None:
                raise UserError(training.read_last_line() or "not trained yet")
            run = read_run(training.find_run())
            rows.append({"name": name, "sibling": point.sibling, **describe_result(run)})
            runs.append(run)
        except UserError as error:
            left_out.append({"name": name, "sibling": point.sibling, "reason": str(error)})
    if not rows:
        raise UserError(f"no training of this study has finished; {left_out[0]['sibling']} {left_out[0]['name']}: "
                        f"{left_out[0]['reason']}")
    defaults, common = flatten(to_dict(Config())), runs[0].config
    told = {key: value for key, value in common.items() if key not in UNTOLD and value != defaults.get(key)
            and all(run.config[key] == value for run in runs)}
    return {
        "command": [word for word in words if word.partition("=")[0] not in PLACES], "config": told,
        "sizes": list_different({part: run.record[f"sizes.{part}"] for part in ("train", "val", "test")}
                                for run in runs),
        **{title: list_different(run.record.get(name) for run in runs) for title, name in (
            ("devices", "device"), ("precisions", "precision"), ("revisions", "git.revision"))},
        "versions": {name: list_different(run.record.get(f"versions.{name}") for run in runs) for name in PACKAGES},
        "date": max(run.started for run in runs)[:10], "note": note, "rows": rows, "left_out": left_out}


def list_different(values: Iterable[Any]) -> list[Any]:
    """Each of the values once, without None."""
    found: list[Any] = []
    for value in values:
        if value is not None and value not in found:
            found.append(value)
    return found


def describe_result(run: SavedRun) -> dict[str, float | int | None]:
    """What a run has reached, with the 95 % interval of Wilson, and what it cost."""
    result, count = run.result, run.record["sizes.test"]
    low, high = compute_interval(round(result["test/accuracy"] * count), count)
    return {"parameters": result["parameters"], "multiply_adds": find_multiply_adds(run),
            "accuracy": result["test/accuracy"], "accuracy_low": low, "accuracy_high": high,
            "train_seconds": result["time/train_s"], "epoch_seconds": result["perf/epoch_seconds"],
            "images_per_second": result["perf/images_per_second"], "peak_memory_gib": result["perf/peak_memory_gib"]}


def find_multiply_adds(run: SavedRun) -> int | None:
    """The multiply-adds of one image, as the sibling counts them in a process of its own; it is kept in the run folder.
    None where they cannot be counted, which is told."""
    file = run.folder / "multiply_adds.json"
    if not file.exists():
        done = subprocess.run([require_interpreter(run.framework), "-m", f"{run.framework}_project.multiply_adds",
                               str(run.folder.resolve())], env=list_variables(), capture_output=True, text=True)
        if done.returncode:
            say(f"{run.folder}: multiply-adds cannot be counted: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
            return None
        write_json(file, {"multiply_adds": int(done.stdout.split()[-1])})
    return read_json(file)["multiply_adds"]
