"""The model that a run folder, a weight file or an exported model holds, before any framework is imported."""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from shared.artifacts.description import is_artifact, read_artifact
from shared.config import Config, build_config
from shared.config.reading import read_override
from shared.data.preprocessing import Preprocessing
from shared.errors import UserError
from shared.machine.hardware import choose_workers
from shared.runs.trained import Trained, read_trained

# Images (n, S, S, C) of values 0 to 255 in, uint8 or float32; logits (n, K) float32 out.
Compute = Callable[[np.ndarray], np.ndarray]
SETTABLE_OF_ARTIFACTS = ("hardware.threads", "hardware.workers", "train.eval_batch_size")


@dataclass(frozen=True)
class Model:
    """What is known of a model without loading it. `threads` is how many read images, and `load` loads it."""

    classes: tuple[str, ...]
    preprocessing: Preprocessing
    batch_size: int
    threads: int
    load: Callable[[], Compute]


def open_model(run: str, words: list[str], build_compute: Callable[[Trained], Compute]) -> Model:
    """The model that `run` names, to be loaded by a sibling's `build_compute` or, where it is an exported one, by its
    own runtime. `words` are key=value.

    Raises:
        UserError: where there is no model, or a word sets a key that means nothing to it.
    """
    if not os.path.exists(os.path.expanduser(run)):
        raise UserError(f"{run} does not exist; name a run folder, a .safetensors file or an exported model first")
    if is_artifact(run):
        return open_artifact(run, words)
    if os.path.isfile(os.path.expanduser(run)) and not run.endswith(".safetensors"):
        raise UserError(f"{run} is no model that is read here: it does not end in .safetensors, and no artifact.json "
                        "lies beside it; name a run folder, a .safetensors file or the folder of an exported model")
    trained = read_trained(run, words)
    return build_description(trained.config, trained.classes, trained.preprocessing, lambda: build_compute(trained))


def open_artifact(path: str, words: list[str]) -> Model:
    artifact = read_artifact(path)
    for word in words:
        if (key := word.partition("=")[0]) not in SETTABLE_OF_ARTIFACTS:
            raise UserError(f"command line: {key} has no effect on an exported model; what can be set here is "
                            f"{', '.join(SETTABLE_OF_ARTIFACTS)}")
    config = build_config([("command line", read_override(word)) for word in words])

    def load() -> Compute:
        from shared.artifacts.runtimes import load_artifact  # here, so that a mistake is told before a runtime loads

        answer = load_artifact(artifact, config.hardware.threads)
        return lambda images: answer(images)[0]
    return build_description(config, artifact.classes, artifact.preprocessing, load)


def build_description(config: Config, classes: tuple[str, ...], preprocessing: Preprocessing,
                      load: Callable[[], Compute]) -> Model:
    # The accelerator matters for images in memory alone.
    threads = choose_workers(config.hardware.workers, from_files=True, accelerator="cpu") or 1
    return Model(classes, preprocessing, config.train.eval_batch_size, threads, load)
