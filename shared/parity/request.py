"""What a sibling's probe is asked for, and how it answers: one config in, one file of arrays out, per task.

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

from shared.batches.data import Data
from shared.config import Config, load_config, to_yaml
from shared.config.command import report_errors
from shared.datasets.sampling import draw_uniforms
from shared.weights.file import Weights

Arrays = dict[str, np.ndarray]

# What each kind of task leaves.
KINDS = {
    "raw": "the split, and order, target and hash of the bytes of every sample of an epoch, before augmentation",
    "pixels": "augmented training batches of all epochs, validation and test batches, and their targets",
    "start": "the weights drawn for the model, and those it holds after they passed through it",
    "forward": "logits in evaluation and training mode, loss, and gradient of each parameter, thinned, for one batch",
    "rates": "the learning rate at every step as the optimizer has it",
    "fit": "weights after the steps in MARKS and test logits at the end of `train`; a run folder beside",
}
LARGEST = 2**18  # values of a tensor that are compared on rung 5
MARKS = (1, 10, 50)  # training steps, counted from 1, after which a fit's weights are kept

# A Python file that a probe runs before it works; the tests break a sibling with it on purpose.
PLUGIN = "TEMPLATE_PROBE_PLUGIN"


@dataclass(frozen=True)
class Task:
    """`name` is a file's name; `config` says all there is to say."""

    name: str
    kind: str
    config: Config


def write_request(tasks: list[Task], folder: Path) -> Path:
    """Write the request and its configs into `folder`, where the answers go too."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for task in tasks:
        config = folder / f"{task.name}.yaml"
        task.config.output_dir = str(folder / "runs" / task.name)
        config.write_text(to_yaml(task.config))
        entries.append({"name": task.name, "kind": task.kind, "config": str(config)})
    request = folder / "request.json"
    request.write_text(json.dumps({"output": str(folder), "tasks": entries}, indent=2))
    return request


def answer_request(kinds: dict[str, Callable[[Config], Arrays]]) -> None:
    """Serve the request that the command line names, with a sibling's function for each kind of task."""
    def work() -> None:
        request = json.loads(Path(sys.argv[1]).read_text())
        if plugin := os.environ.get(PLUGIN):
            runpy.run_path(plugin)
        for task in request["tasks"]:
            started = time.perf_counter()
            arrays = kinds[task["kind"]](load_config(Path(task["config"])))
            with (Path(request["output"]) / f"{task['name']}.npz").open("wb") as file:
                np.savez(file, **arrays)
            print(f"{task['name']}: {time.perf_counter() - started:.1f} s", flush=True)
    assert kinds.keys() == KINDS.keys()
    report_errors(work)


def hash_items(items: Iterable[Any]) -> np.ndarray:
    """A hash of the bytes of each item, such as images (n, H, W, C) uint8, (n,) uint64."""
    return np.array([int.from_bytes(blake2b(item, digest_size=8).digest()) for item in items], np.uint64)


def record_splits(data: Data) -> Arrays:
    """Which samples train, validate and test: a hash of each one's pixels or path, (n,) uint64, and labels (n,)."""
    found = {}
    for name, images in (("train", data.train), ("val", data.val), ("test", data.test)):
        found[f"{name} samples"] = hash_items(images.pixels if images.files is None else map(str.encode, images.files))
        found[f"{name} labels"] = images.labels
    return found


def thin_out(tensor: np.ndarray) -> np.ndarray:
    """Evenly spaced values of a tensor with more than LARGEST of them: a ViT-Base's gradients are 700 MB in float64."""
    if tensor.size <= LARGEST:
        return tensor
    return tensor.reshape(-1)[::-(-tensor.size // LARGEST) | 1]  # odd, so that it is not always the same place in a row


def perturb_vectors(weights: Weights) -> Weights:
    """`weights` with each vector moved by up to a quarter, float32.

    The vectors of a new network are all 0 or 1, so that a scale taken for a variance would go unseen.
    """
    return {name: (tensor + 0.25 * (2 * draw_uniforms(tensor.size, index) - 1)).astype(np.float32)
            if tensor.ndim == 1 else tensor for index, (name, tensor) in enumerate(sorted(weights.items()))}
