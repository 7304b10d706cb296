"""Whether an exported model gives the answers of the trained one, found out in a process that has nothing but its
runtime."""

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shared.artifacts.description import Artifact
from shared.artifacts.samples import Samples, write_pictures
from shared.machine.console import format_percent
from shared.machine.interpreters import list_variables

GRAPH = 2**20  # bytes that a model takes beside its weights, whatever their size


@dataclass(frozen=True)
class Criterion:
    """What an exported model may differ in. `delta` is a share of the range of the trained model's logits; so are
    `batch`, of the same images in batches of 1, 7 and 64, `encoded`, of images that the model itself decodes, and
    `recorded`, of what the run has recorded, against the trained model. `probabilities` is a difference to the softmax
    of the logits, which takes 8 bits in LiteRT's int8; `lost` and `changed` are shares of the answers; `size` is a
    multiple of the weights in fp32."""

    delta: float
    batch: float
    probabilities: float
    lost: float
    changed: float
    size: float
    # A few pixels of a decoded image are a grey level off, which moves logits by far less.
    encoded: float = 0.01
    # bf16 keeps 8 bits of a number, and a run may have recorded its logits in it, or in TF32 on a GPU. Other weights or
    # other images are as far away as the range is wide.
    recorded: float = 0.1


# Where activations are quantised as they come, the scale is that of a whole batch, so that images of a batch depend on
# each other.
CRITERIA = {"": Criterion(delta=1e-4, batch=1e-4, probabilities=1e-5, lost=1, changed=1, size=1.2),
            "fp16": Criterion(delta=1e-2, batch=1e-4, probabilities=1e-3, lost=0.01, changed=0.02, size=0.6),
            "int8": Criterion(delta=1, batch=1e-4, probabilities=1e-2, lost=0.01, changed=0.05, size=0.3),
            "dynamic": Criterion(delta=1, batch=1, probabilities=1e-2, lost=0.01, changed=0.05, size=0.3)}


@dataclass
class Check:
    """What was found. Accuracies are None for images without labels. `reasons` say why the model is rejected."""

    images: int
    source: str
    delta_logits: float = float("nan")
    logits_range: float = float("nan")
    delta_probabilities: float = float("nan")     # to the softmax of its own logits
    delta_between_batches: float = float("nan")   # of the same images in batches of 1, 7 and 64
    delta_of_rounding: float = 0.0                # of the trained model's logits, where uint8 rounds what scaling gives
    delta_of_encoded: float | None = None         # of images that the model itself decodes
    delta_to_recorded: float | None = None        # of the trained model, to what the run recorded in its precision
    equal_answers: int = 0
    accuracy: float | None = None
    accuracy_trained: float | None = None
    bytes: int = 0
    bytes_of_weights: int = 0
    dtypes: list[str] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)  # of the siblings, that the process which asked had to load
    criterion: dict[str, float] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.reasons

    def to_dict(self) -> dict[str, Any]:
        return {"passed": self.passed, **asdict(self)}


def check_artifact(artifact: Artifact, samples: Samples, expected: np.ndarray, bytes_of_weights: int,
                   ask_trained: Callable[[np.ndarray], np.ndarray]) -> Check:
    """Ask the exported model about the samples in a new process, and compare with `expected`, the logits (n, K) of the
    trained model, which `ask_trained` returns for other pixels."""
    check = Check(len(samples.pixels), samples.source, bytes=artifact.size, bytes_of_weights=bytes_of_weights)
    with tempfile.TemporaryDirectory(dir=artifact.folder) as place:
        folder = Path(place)
        (folder / "pictures").mkdir()
        pictures = write_pictures(folder / "pictures", samples, artifact.preprocessing)
        np.savez(folder / "given.npz", pixels=samples.pixels)
        if failure := ask_in_new_process(artifact.folder, folder / "given.npz", folder / "found.npz"):
            require_room(failure)
            check.reasons.append(f"its runtime does not run it: {failure}")
            return check
        with np.load(folder / "found.npz") as file:
            found = dict(file)
    compare_answers(check, found, expected, samples.labels)
    if "encoded" in found:
        check.delta_of_encoded = float(np.abs(found["encoded"] - ask_trained(pictures)).max())
    if samples.recorded is not None:
        check.delta_to_recorded = float(np.abs(expected - samples.recorded).max())
    judge_check(check, CRITERIA[artifact.quantisation], artifact.quantisation)
    return check


def ask_in_new_process(folder: Path, given: Path, found: Path) -> str:
    """Run `shared.artifacts.asking`. Returns why it failed; empty where it has answered."""
    command = [sys.executable, "-m", "shared.artifacts.asking", str(folder), str(given), str(found)]
    done = subprocess.run(command, env=list_variables(), capture_output=True, text=True, errors="replace")
    if done.returncode < 0:
        return f"it was ended by signal {-done.returncode}"
    lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it ended without a word"]
    return lines[-1].removeprefix("error: ") if done.returncode else ""


def require_room(said: str) -> None:
    """Raise `OSError` where an error of another process, or of a library that has its own for it, is of a full disk."""
    if "No space left" in said:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def compare_answers(check: Check, found: dict[str, np.ndarray], expected: np.ndarray,
                    labels: np.ndarray | None) -> None:
    """Write into `check` how a model's answers differ from the `expected` logits (n, K). `found` is what `asking`
    writes."""
    logits, answers = found["logits"], found["logits"].argmax(axis=1)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    check.delta_logits = float(np.abs(logits - expected).max())
    check.logits_range = float(np.ptp(expected))
    check.delta_probabilities = float(np.abs(powers / powers.sum(axis=1, keepdims=True) - found["probabilities"]).max())
    check.delta_between_batches = float(np.abs(found["again"] - np.resize(logits, found["again"].shape[1:])).max())
    check.equal_answers = int((answers == expected.argmax(axis=1)).sum())
    check.dtypes, check.modules = found["dtypes"].tolist(), found["modules"].tolist()
    if labels is not None:
        check.accuracy = float((answers == labels).mean())
        check.accuracy_trained = float((expected.argmax(axis=1) == labels).mean())


def judge_check(check: Check, criterion: Criterion, quantisation: str) -> None:
    """Write what the model fails by into `check.reasons`."""
    check.criterion = asdict(criterion)
    span, reasons = check.logits_range, check.reasons
    if not check.delta_logits <= criterion.delta * span:  # also where one is NaN
        reasons.append(f"its logits are {check.delta_logits:.2g} from the trained model's, allowed are "
                       f"{criterion.delta * span:.2g}, {criterion.delta:g} of their range")
    if not check.delta_between_batches <= criterion.batch * span:
        reasons.append(f"its logits of an image change by {check.delta_between_batches:.2g} with the images beside it, "
                       "as if it were training")
    if check.delta_of_encoded is not None and not check.delta_of_encoded <= criterion.encoded * span:
        reasons.append(f"its logits of encoded images are {check.delta_of_encoded:.2g} from the trained model's, "
                       f"allowed are {criterion.encoded * span:.2g}, {criterion.encoded:g} of their range")
    if check.delta_to_recorded is not None and not check.delta_to_recorded <= criterion.recorded * span:
        reasons.append(f"the trained model's logits are {check.delta_to_recorded:.2g} from those in predictions.npz, "
                       f"allowed are {criterion.recorded * span:.2g}, so the test images are others than the run's, or "
                       "the weights are")
    if not check.delta_probabilities <= criterion.probabilities:
        reasons.append(f"its probabilities are {check.delta_probabilities:.2g} from the softmax of its logits")
    # One answer may change in any number of images, since it is a large share of a few.
    changed = check.images - check.equal_answers
    if changed > max(1, criterion.changed * check.images):
        reasons.append(f"{changed} of {check.images} answers are others, allowed are {criterion.changed:.0%}")
    if check.accuracy is not None:
        lost = round((check.accuracy_trained - check.accuracy) * check.images)
        if lost > max(1, criterion.lost * check.images):
            reasons.append(f"its accuracy is {format_percent(check.accuracy)}, the trained model's "
                           f"{format_percent(check.accuracy_trained)}")
    allowed = criterion.size * check.bytes_of_weights + GRAPH
    if check.bytes > allowed:
        reasons.append(f"it has {check.bytes:,} bytes, allowed are {allowed:,.0f}")
    half = {"bfloat16"} | (set() if quantisation == "fp16" else {"float16"})
    if half & set(check.dtypes):
        reasons.append(f"it computes in {' and '.join(sorted(half & set(check.dtypes)))}")
