"""The neutral weight file, which both siblings read and write.

It is a safetensors file with the names of a PyTorch `state_dict`, those of timm's and torchvision's models, and with
PyTorch's layout: (out, in, height, width) for a convolution, (out, in) for a dense layer. It leaves out BatchNorm's
`num_batches_tracked`, which only matters with `momentum=None`, and no model here has that.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialise

from shared.config import Config, to_yaml
from shared.data.preprocessing import Preprocessing
from shared.data.sampling import fingerprint
from shared.errors import UserError
from shared.machine.files import write_whole

Shapes = dict[str, tuple[int, ...]]
Weights = dict[str, np.ndarray]

FORMAT = "lightning-keras-template/1"


def read_weights(path: Path) -> Weights:
    """All tensors of a weight file by name. Raises `UserError` where it cannot be read as safetensors."""
    try:
        with safe_open(path, "np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - `file` is no iterable
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is not a readable safetensors file ({str(error).splitlines()[0]}); use another, or "
                        "train anew") from None


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, which `save_weights` fills; empty where the file has none.

    Raises:
        UserError: where the file cannot be read as safetensors.
    """
    try:
        with safe_open(path, "np") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}); use another, or train anew") from None


def read_classes(path: Path) -> tuple[str, ...]:
    """The names of the classes, in the order of the logits; empty for a file that `save_weights` did not write."""
    metadata = read_metadata(path)
    return tuple(json.loads(metadata["classes"])) if metadata.get("format") == FORMAT else ()


def require_matching_tensors(weights: Weights, shapes: Shapes, source: object) -> None:
    """Raise `UserError` where `weights` have other names or shapes than the model's `shapes`.

    `source` is what the message calls the weights.
    """
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
                  write_file: Callable[[Path, Callable[[Path], object]], None] = write_whole) -> None:
    """Write a safetensors file by `write_file`, such as `write_checkpoint`.

    Raises:
        UserError: where the disk is full or may not be written to; the old file is still whole then.
    """
    # Through bytes, because safetensors' own function makes files that only their owner can read.
    content = serialise({name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}, metadata)
    write_file(path, lambda file: file.write_bytes(content))


def save_weights(path: Path, weights: Weights, config: Config, classes: tuple[str, ...]) -> None:
    """Write a neutral weight file. Its metadata hold the config, the names of the `classes` and the preprocessing."""
    write_tensors(path, weights, {"format": FORMAT, "model": config.model.name, "classes": json.dumps(classes),
                                  "config": to_yaml(config),
                                  "preprocessing": json.dumps(Preprocessing.of_config(config).to_dict())})


def fingerprint_weights(weights: Weights) -> str:
    """A hash of the names, dtypes, shapes and values of all tensors."""
    names = sorted(weights)
    return fingerprint(np.array(names), *(weights[name] for name in names))
