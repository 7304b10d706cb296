"""A trained model without its data set: what it takes to build it, to fill it and to ask it about images."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from shared.config import Config, read_kept_config
from shared.data.preprocessing import Preprocessing
from shared.errors import UserError
from shared.machine.files import find_weight_file
from shared.weights.file import FORMAT, Shapes, Weights, read_metadata, read_weights, require_matching_tensors

# The keys that mean something once a model is trained.
SETTABLE = ("hardware.accelerator", "hardware.precision", "hardware.threads", "hardware.workers",
            "train.eval_batch_size", "evaluate.tta")


@dataclass(frozen=True)
class Trained:
    """`build_model` takes it in place of a data set. `folder` is the run's; None for a weight file that lies alone."""

    config: Config
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    weights: Path
    folder: Path | None

    @property
    def image_size(self) -> int:
        return self.preprocessing.image_size

    @property
    def channels(self) -> int:
        return self.preprocessing.channels

    def read_weights(self, shapes: Shapes) -> Weights:
        """The tensors for a model with `shapes`. Raises `UserError` where they do not fit it."""
        weights = read_weights(self.weights)
        require_matching_tensors(weights, shapes, self.weights)
        return weights


def read_trained(source: str, words: list[str] | None = None) -> Trained:
    """What `source` holds, a run folder or a weight file of either sibling. It is to run on one device.

    `words` are key=value of SETTABLE.

    Raises:
        UserError: where there are no weights, or none of this repository; where a word sets another key.
    """
    for word in words or []:
        if (key := word.partition("=")[0]) not in SETTABLE:
            raise UserError(f"command line: {key} has no effect on a trained model; what can be set here is "
                            f"{', '.join(SETTABLE)}")
    path = find_weight_file(source)
    metadata = read_metadata(path)
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path} does not say what it was trained on, since it was not written by this repository; "
                        "name a run folder, or train from it with model.pretrained= or init_from=")
    folder = path.parent if os.path.isfile(path.parent / "config.yaml") else None
    config = read_kept_config(metadata["config"], path, words)
    config.hardware.devices, config.hardware.num_nodes, config.hardware.strategy = 1, 1, "auto"
    # Weights of an older version do not name their preprocessing; it follows from the config.
    preprocessing = Preprocessing.from_dict(json.loads(metadata["preprocessing"])) if "preprocessing" in metadata \
        else Preprocessing.of_config(config)
    return Trained(config, tuple(json.loads(metadata["classes"])), preprocessing, path, folder)


def describe_unfinished(trained: Trained) -> str:
    """One line where the weights are of a run that has not ended, so that better ones may come; empty otherwise."""
    if trained.folder is None or (trained.folder / "result.json").is_file():
        return ""
    return (f"the training in {trained.folder} has not ended: these are its best weights so far, and better ones may "
            "come")
