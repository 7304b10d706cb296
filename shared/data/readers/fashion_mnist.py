"""Fashion-MNIST, from its IDX files."""

import math
from pathlib import Path

import numpy as np

from shared.data.arrays import Arrays, read_bytes, validate_labels
from shared.data.definition import Definition
from shared.errors import UserError


def read_fashion_mnist(definition: Definition, folder: Path) -> tuple[Arrays, Arrays]:
    """Training and test images of Fashion-MNIST, (60000 | 10000, 28, 28, 1), from its four IDX files.

    Raises:
        UserError: a file is damaged, or is another one than its name says.
    """
    names = iter(definition.members)
    sets = []
    for count in (definition.train_images, definition.test_images):
        pixels = read_idx(folder / next(names), (count, definition.image_size, definition.image_size))
        labels_file = folder / next(names)
        labels = read_idx(labels_file, (count,)).astype(np.int64)
        validate_labels(labels_file, labels, definition)
        sets.append((pixels[..., np.newaxis], labels))
    return tuple(sets)


def read_idx(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    """An IDX file of bytes, gzipped or not, as an array of the given `shape`.

    Such a file begins with two zero bytes, the type (8 means uint8), the number of dimensions, and the length of each
    dimension as a big-endian uint32. The values follow (http://yann.lecun.com/exdb/mnist/).

    Raises:
        UserError: the file is no such file, is damaged, or holds an array of another shape.
    """
    raw = read_bytes(file if file.exists() else file.with_suffix(""))
    header = 4 + 4 * len(shape)
    if raw[:4] != bytes([0, 0, 8, len(shape)]) or len(raw) < header:
        raise UserError(f"{file} is not an IDX file of bytes in {len(shape)} dimensions: it starts with "
                        f"{raw[:4].hex() or 'nothing'}; get the official file anew")
    found = tuple(int(side) for side in np.frombuffer(raw, ">u4", len(shape), offset=4))
    if found != shape:
        raise UserError(f"{file} holds an array of shape {found}, expected {shape}; get the official file anew")
    if len(raw) - header != math.prod(shape):
        raise UserError(f"{file} holds {len(raw) - header} bytes of values where its header says {math.prod(shape)}; "
                        "it is damaged, get the official file anew")
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)
