"""Data sets in arrays: how the reader of an entry is found, what it may return, and what all readers need."""

import gzip
import zlib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np

from shared.data.definition import Definition
from shared.errors import UserError

Arrays = tuple[np.ndarray, np.ndarray]  # pixels (n, H, W, C) uint8, labels (n,) int64


def read_arrays(name: str, definition: Definition, folder: Path | None) -> tuple[Arrays, Arrays]:
    """Training and test images of the data set `name`, by its reader.

    Args:
        folder: holds the definition's `members`; None where it has none.

    Raises:
        UserError: there is no such reader, or it returns something else than `Definition` demands.
    """
    given = find_reader(name, definition)(definition, folder)
    reader = f"read_{definition.reader}, the reader of the data set '{name}',"
    try:
        (train_pixels, train_labels), (test_pixels, test_labels) = given
    except (TypeError, ValueError):
        raise UserError(f"{reader} returns {describe_value(given)}; expected two pairs (pixels, labels), of the "
                        "training and of the test images") from None
    train = validate_arrays(f"{reader} returns", "training", train_pixels, train_labels, definition)
    test = validate_arrays(f"{reader} returns", "test", test_pixels, test_labels, definition)
    absent = np.setdiff1d(np.arange(len(definition.classes)), train[1])
    if len(absent):
        raise UserError(f"{reader} returns no training image of class '{definition.classes[absent[0]]}'; the entry "
                        f"lists {len(definition.classes)} classes and {len(absent)} of them have none")
    return train, test


def find_reader(name: str, definition: Definition) -> Callable[[Definition, Path | None], tuple[Arrays, Arrays]]:
    """The function read_<reader> of shared/data/readers/<reader>.py. Raises `UserError` where it is not there."""
    module = import_module(f"shared.data.readers.{definition.reader}")
    found = getattr(module, f"read_{definition.reader}", None)
    if not callable(found):
        raise UserError(f"the data set '{name}' has reader='{definition.reader}', but shared/data/readers/"
                        f"{definition.reader}.py has no function read_{definition.reader}; write it")
    return found


def validate_arrays(said: str, part: str, pixels: np.ndarray, labels: np.ndarray, definition: Definition) -> Arrays:
    """The pixels as they are and the labels as int64, if they are what `Definition` demands.

    `said` begins each message, `part` is "training" or "test". Raises `UserError`.
    """
    size, channels, last = definition.image_size, definition.channels, len(definition.classes) - 1
    count = definition.train_images if part == "training" else definition.test_images
    if (not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 4
            or pixels.shape[1:] != (size, size, channels)):
        raise UserError(f"{said} {part} pixels as {describe_value(pixels)}; expected an array "
                        f"(n, {size}, {size}, {channels}) uint8, since the entry has image_size={size} and mean for "
                        f"{channels} channel{'s' if channels > 1 else ''}")
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu" or labels.shape != (len(pixels),):
        raise UserError(f"{said} {part} labels as {describe_value(labels)}; expected an array ({len(pixels)},) of "
                        "whole numbers, one for each image")
    if count and len(pixels) != count:
        raise UserError(f"{said} {len(pixels)} {part} images; expected {count}, as the entry says")
    if len(labels) and not (labels.min() >= 0 and labels.max() <= last):
        raise UserError(f"{said} {part} labels from {labels.min()} to {labels.max()}; expected 0 to {last}, since the "
                        f"entry lists {last + 1} classes")
    return pixels, labels.astype(np.int64)


def describe_value(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array {value.shape} {value.dtype}"
    return f"a {type(value).__name__} of {len(value)}" if isinstance(value, tuple | list) else type(value).__name__


def read_bytes(file: Path) -> bytes:
    """The content of a file, unpacked where its name ends in gz. Raises `UserError`."""
    try:
        if file.suffix == ".gz":
            with gzip.open(file) as stream:
                return stream.read()
        return file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        what = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{file} cannot be read ({what}); delete it and get it anew") from error


def validate_labels(file: Path, labels: np.ndarray, definition: Definition) -> None:
    """Raise `UserError` where a published file holds a label beyond the last class."""
    if labels.max(initial=0) >= len(definition.classes):
        raise UserError(f"{file} holds label {labels.max()} where the last class is {len(definition.classes) - 1}; it "
                        "is damaged or of another data set, get the official file anew")
