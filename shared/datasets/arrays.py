"""Small data sets, read whole into memory as uint8 arrays."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from shared.datasets.definitions import Definition
from shared.errors import UserError
from shared.sampling import split

Arrays = tuple[np.ndarray, np.ndarray]  # pixels (n, H, W, C) uint8, labels (n,) int64

# The seed of test sets that are ours to draw: they must not move with config.seed, whose values end below it.
FIXED_SEED = 2**31


def digits(_definition: Definition, _folder: None) -> tuple[Arrays, Arrays]:
    """Training and test images of the UCI digits that scikit-learn bundles, (1438 | 359, 8, 8, 1).

    They have no official split: a fixed fifth of each class is the test set.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # Counts of dark cells in 4x4 blocks, so 0..16 (https://archive.ics.uci.edu/dataset/80).
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]  # (1797, 8, 8, 1)
    labels = bunch.target.astype(np.int64)
    train, test = split(labels, 0.2, FIXED_SEED)
    return (pixels[train], labels[train]), (pixels[test], labels[test])


def fashion_mnist(definition: Definition, folder: Path) -> tuple[Arrays, Arrays]:
    """Training and test images of Fashion-MNIST, (60000 | 10000, 28, 28, 1), from its four IDX files.

    Raises:
        UserError: a file is damaged or is not the one its name says.
    """
    names = iter(definition.members)
    sets = []
    for count in (definition.train_images, definition.test_images):
        pixels = read_idx(folder / next(names), (count, definition.image_size, definition.image_size))
        labels_file = folder / next(names)
        labels = read_idx(labels_file, (count,)).astype(np.int64)
        check_labels(labels_file, labels, definition)
        sets.append((pixels[..., np.newaxis], labels))
    return tuple(sets)


def cifar(definition: Definition, folder: Path) -> tuple[Arrays, Arrays]:
    """Training and test images of CIFAR-10 or CIFAR-100, (50000 | 10000, 32, 32, 3), from the binary version.

    A record is the label, for CIFAR-100 the coarse and the fine one, then 3072 bytes: the channel planes red, green and
    blue, each row by row (https://www.cs.toronto.edu/~kriz/cifar.html).

    Raises:
        UserError: a file does not have the size that its number of images takes.
    """
    *train_files, test_file = [folder / name for name in definition.members]
    label_bytes = 2 if "train.bin" in definition.members else 1
    share = definition.train_images // len(train_files)
    train = [read_cifar(file, share, label_bytes, definition) for file in train_files]
    pixels, labels = (np.concatenate(parts) for parts in zip(*train, strict=True))
    return (pixels, labels), read_cifar(test_file, definition.test_images, label_bytes, definition)


def read_cifar(file: Path, count: int, label_bytes: int, definition: Definition) -> Arrays:
    size = definition.image_size
    raw = read_bytes(file)
    record = label_bytes + 3 * size * size
    if len(raw) != count * record:
        raise UserError(f"{file} has {len(raw)} bytes where {count} images take {count * record}; it is damaged or of "
                        f"another kind, get it anew from {definition.downloads[0].address}")
    records = np.frombuffer(raw, np.uint8).reshape(count, record)
    labels = records[:, label_bytes - 1].astype(np.int64)
    check_labels(file, labels, definition)
    planes = records[:, label_bytes:].reshape(count, 3, size, size)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels  # (n, H, W, 3)


def read_idx(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    """An IDX file of bytes, gzipped or not, that must have this shape. Raises `UserError`.

    Two zero bytes, the type (8: uint8), the number of dimensions, each of these as a big-endian uint32, then the values
    (http://yann.lecun.com/exdb/mnist/).
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


def check_labels(file: Path, labels: np.ndarray, definition: Definition) -> None:
    if labels.max(initial=0) >= len(definition.classes):
        raise UserError(f"{file} holds label {labels.max()} where the last class is {len(definition.classes) - 1}; it "
                        "is damaged or of another data set, get the official file anew")
