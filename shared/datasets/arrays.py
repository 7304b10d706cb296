"""What readers of data sets in arrays have in common."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from shared.datasets.definition import Definition
from shared.errors import UserError

Arrays = tuple[np.ndarray, np.ndarray]  # pixels (n, H, W, C) uint8, labels (n,) int64


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
    if labels.max(initial=0) >= len(definition.classes):
        raise UserError(f"{file} holds label {labels.max()} where the last class is {len(definition.classes) - 1}; it "
                        "is damaged or of another data set, get the official file anew")
