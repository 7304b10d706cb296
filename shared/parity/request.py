"""The tasks that a sibling's probe is given, and its answers. A task is a config, its answer a file of arrays.

A request is a JSON file: {"output": folder, "tasks": [{"name", "kind", "config"}]}, where `config` is the path of a
YAML file and `kind` one of KINDS. The answer to a task is <output>/<name>.npz.
"""

import json
import os
import runpy
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from shared.config import Config, load_config, to_yaml
from shared.data.loading import Data
from shared.data.sampling import draw_uniforms
from shared.machine.ending import report_errors
from shared.weights.file import Weights

Arrays = dict[str, np.ndarray]

VIEWS = "mirror_translate"  # the test-time augmentation whose logits the answer to a forward task holds

# What the answer to each kind of task holds.
KINDS = {
    "raw": "the split, and index, target and hash of the bytes of each sample of an epoch, in order, not augmented",
    "pixels": "augmented training batches of all epochs, validation and test batches, and their targets",
    "start": "the weights drawn for the model, and those read back from the model that has loaded them",
    "forward": "for one batch, logits in evaluation, in training mode and as the mean over VIEWS, the loss, and the "
               "parameters' gradients",
    "rates": "the learning rate that the optimizer has at each step",
    "fit": "weights after the steps in MARKS, test logits at the end of `train`, and its run folder",
}
LARGEST = 2**18  # of larger gradients so many values are compared
MARKS = (1, 10, 50)  # training steps, counted from 1, after which a fit's weights are kept

# The environment variable that names a Python file which a probe runs first. The tests sabotage a sibling by it.
PLUGIN = "TEMPLATE_PROBE_PLUGIN"


@dataclass(frozen=True)
class Task:
    """A task for both siblings: one of KINDS, with a `config` that says the rest. `name` serves as the files' name."""

    name: str
    kind: str
    config: Config


def write_request(tasks: list[Task], folder: Path) -> Path:
    """Write a request and its configs into `folder`, where the answers will be too, and return the request's path."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for task in tasks:
        config = folder / f"{task.name}.yaml"
        task.config.output_dir = str(folder / "runs" / task.name)
        config.write_text(to_yaml(task.config), encoding="utf-8")
        entries.append({"name": task.name, "kind": task.kind, "config": str(config)})
    request = folder / "request.json"
    request.write_text(json.dumps({"output": str(folder), "tasks": entries}, indent=2), encoding="utf-8")
    return request


def answer_request(kinds: dict[str, Callable[[Config], Arrays]]) -> None:
    """Answer the request that the command line names; `kinds` holds the sibling's function for each kind of task."""
    def answer_tasks() -> None:
        request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
        if plugin := os.environ.get(PLUGIN):
            runpy.run_path(plugin)
        for task in request["tasks"]:
            started = time.perf_counter()
            arrays = kinds[task["kind"]](load_config(Path(task["config"])))
            with (Path(request["output"]) / f"{task['name']}.npz").open("wb") as file:
                np.savez(file, **arrays)
            print(f"{task['name']}: {time.perf_counter() - started:.1f} s", flush=True)
    assert kinds.keys() == KINDS.keys()
    report_errors(answer_tasks)


def hash_items(items: Iterable[Any]) -> np.ndarray:
    """A hash of the bytes of each of n items, such as images (n, H, W, C) uint8; (n,) uint64."""
    return np.array([int.from_bytes(blake2b(item, digest_size=8).digest()) for item in items], np.uint64)


def record_splits(data: Data) -> Arrays:
    """The samples of each split: hashes of their pixels or paths, (n,) uint64, and their labels, (n,) int64."""
    found = {}
    for name, images in (("train", data.train), ("val", data.val), ("test", data.test)):
        found[f"{name} samples"] = hash_items(images.pixels if images.files is None else map(str.encode, images.files))
        found[f"{name} labels"] = images.labels
    return found


def thin_out(tensor: np.ndarray) -> np.ndarray:
    """At most LARGEST evenly spaced values of a tensor, since the gradients of a ViT-Base are 700 MB in float64."""
    if tensor.size <= LARGEST:
        return tensor
    step = -(-tensor.size // LARGEST) | 1  # odd, so that not all values are of the same column
    return tensor.reshape(-1)[::step]


def perturb_vectors(weights: Weights) -> Weights:
    """`weights` with up to a quarter added to or subtracted from each value of a vector, float32.

    The vectors of a new network hold only 0 or 1, so that exchanging a scale and a variance would not be noticed.
    """
    return {name: (tensor + 0.25 * (2 * draw_uniforms(tensor.size, index) - 1)).astype(np.float32)
            if tensor.ndim == 1 else tensor for index, (name, tensor) in enumerate(sorted(weights.items()))}
