"""CIFAR-10 and CIFAR-100, from their binary version."""

from pathlib import Path

import numpy as np

from shared.datasets.arrays import Arrays, read_bytes, validate_labels
from shared.datasets.definition import Definition
from shared.errors import UserError


def read_cifar(definition: Definition, folder: Path) -> tuple[Arrays, Arrays]:
    """Training and test images of CIFAR-10 or CIFAR-100, (50000 | 10000, 32, 32, 3), from the binary version.

    A record is the label, for CIFAR-100 the coarse and the fine one, then 3072 bytes: the channel planes red, green and
    blue, each row by row (https://www.cs.toronto.edu/~kriz/cifar.html).

    Raises:
        UserError: a file does not have the size that its number of images takes.
    """
    *train_files, test_file = [folder / name for name in definition.members]
    label_bytes = 2 if "train.bin" in definition.members else 1
    share = definition.train_images // len(train_files)
    train = [read_cifar_file(file, share, label_bytes, definition) for file in train_files]
    pixels, labels = (np.concatenate(parts) for parts in zip(*train, strict=True))
    return (pixels, labels), read_cifar_file(test_file, definition.test_images, label_bytes, definition)


def read_cifar_file(file: Path, count: int, label_bytes: int, definition: Definition) -> Arrays:
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
