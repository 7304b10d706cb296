"""The neutral weight file, in which weights travel between the siblings.

Neutral means: the names of a PyTorch `state_dict` (those of timm's and torchvision's models), PyTorch's layout
(convolution: out, in, height, width; dense: out, in), safetensors. BatchNorm's `num_batches_tracked` is left out: it
only matters with `momentum=None`, which nobody here uses.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialise

from shared.config import Config, to_yaml
from shared.datasets.sampling import fingerprint
from shared.errors import UserError
from shared.machine.files import write_whole

Shapes = dict[str, tuple[int, ...]]
Weights = dict[str, np.ndarray]

FORMAT = "lightning-keras-template/1"


def read_weights(path: Path) -> Weights:
    """All tensors of a weight file. Raises `UserError` where it is damaged or of another format."""
    try:
        with safe_open(path, "np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no iterator of its own
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is not a readable safetensors file ({str(error).splitlines()[0]}); use another, or "
                        "train anew") from None


def read_metadata(path: Path) -> dict[str, str]:
    """What `save` wrote beside the tensors; empty for a file from elsewhere."""
    try:
        with safe_open(path, "np") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}); use another, or train anew") from None


def read_classes(path: Path) -> tuple[str, ...]:
    """The classes that the weights in `path` tell apart; empty for a file from elsewhere, which does not say."""
    metadata = read_metadata(path)
    return tuple(json.loads(metadata["classes"])) if metadata.get("format") == FORMAT else ()


def require_matching_tensors(weights: Weights, shapes: Shapes, source: object) -> None:
    """Raise `UserError` naming the tensors where `weights` are not exactly those of the model."""
    missing = [name for name in shapes if name not in weights]
    extra = [name for name in weights if name not in shapes]
    wrong = [f"{name} is {tuple(weights[name].shape)}, expected {tuple(shape)}" for name, shape in shapes.items()
             if name in weights and tuple(weights[name].shape) != tuple(shape)]
    problems = ([f"missing {', '.join(missing[:3])}{' ...' if missing[3:] else ''}"] if missing else []) \
        + ([f"unexpected {', '.join(extra[:3])}{' ...' if extra[3:] else ''}"] if extra else []) + wrong[:3]
    if problems:
        raise UserError(f"{source} does not fit this model: {'; '.join(problems)}; check model.name, dataset.name, "
                        "dataset.image_size, model.stem and model.patch_size")


def write_tensors(path: Path, tensors: Weights, metadata: dict[str, str],
                  into: Callable[[Path, Callable[[Path], object]], None] = write_whole) -> None:
    """Write a safetensors file so that a kill or a full disk leaves the previous one whole."""
    # Through bytes, because safetensors' own writing makes files that only their owner can read.
    content = serialise({name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}, metadata)
    into(path, lambda file: file.write_bytes(content))


def save_weights(path: Path, weights: Weights, config: Config, classes: tuple[str, ...]) -> None:
    """Write a neutral weight file, with the config and the classes it belongs to."""
    write_tensors(path, weights, {"format": FORMAT, "model": config.model.name, "classes": json.dumps(classes),
                                  "config": to_yaml(config)})


def fingerprint_weights(weights: Weights) -> str:
    """A hash of all tensors, by name."""
    names = sorted(weights)
    return fingerprint(np.array(names), *(weights[name] for name in names))
