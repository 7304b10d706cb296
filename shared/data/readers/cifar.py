"""CIFAR-10 and CIFAR-100, from their binary version."""

from pathlib import Path

import numpy as np

from shared.data.arrays import Arrays, read_bytes, validate_labels
from shared.data.definition import Definition
from shared.errors import UserError


def read_cifar(definition: Definition, folder: Path) -> tuple[Arrays, Arrays]:
    """Training and test images of CIFAR-10 or CIFAR-100, (50000 | 10000, 32, 32, 3), from the binary version.

    A record is one byte with the label, or for CIFAR-100 two with the coarse and the fine label, and 3072 bytes of
    pixels: the red, the green and the blue channel, each row by row (https://www.cs.toronto.edu/~kriz/cifar.html).

    Raises:
        UserError: a file has another size than its images need, or a label beyond the last class.
    """
    *train_files, test_file = [folder / name for name in definition.members]
    label_bytes = 2 if "train.bin" in definition.members else 1
    per_file = definition.train_images // len(train_files)
    train = [read_cifar_file(file, per_file, label_bytes, definition) for file in train_files]
    pixels, labels = (np.concatenate(parts) for parts in zip(*train, strict=True))
    return (pixels, labels), read_cifar_file(test_file, definition.test_images, label_bytes, definition)


def read_cifar_file(file: Path, count: int, label_bytes: int, definition: Definition) -> Arrays:
    """The `count` images of one file, whose records begin with `label_bytes` labels. Raises `UserError`."""
    size = definition.image_size
    raw = read_bytes(file)
    record = label_bytes + 3 * size * size
    if len(raw) != count * record:
        raise UserError(f"{file} has {len(raw)} bytes where {count} images take {count * record}; it is damaged or of "
                        f"another kind, get it anew from {definition.downloads[0].address}")
    records = np.frombuffer(raw, np.uint8).reshape(count, record)
    labels = records[:, label_bytes - 1].astype(np.int64)
    validate_labels(file, labels, definition)
    planes = records[:, label_bytes:].reshape(count, 3, size, size)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels  # (n, H, W, 3)
