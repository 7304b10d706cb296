"""Images that are there more than once, told by their content."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

END = 4096  # bytes; two files of one size that differ almost always differ here, and JPEGs begin alike


class Copy(NamedTuple):
    """An image, number `row` of `part`, and an earlier one with the same content."""

    part: str
    row: int
    other_part: str
    other_row: int


def find_copies(contents: dict[str, list[Hashable]]) -> Iterator[Copy]:
    """Each image whose content has come before, with the first that has it. Parts come in the order of `contents`."""
    first: dict[Hashable, tuple[str, int]] = {}
    for part, keys in contents.items():
        for row, key in enumerate(keys):
            if first.setdefault(key, (part, row)) != (part, row):
                yield Copy(part, row, *first[key])


def digest_pixels(pixels: np.ndarray) -> list[Hashable]:
    """A key for each image, equal for equal pixels."""
    return [compute_digest(image.tobytes()) for image in pixels]


def digest_files(files: list[str], sizes: np.ndarray) -> list[Hashable]:
    """A key for each file, equal for equal bytes. A file is read only where another has its size, and as a whole only
    where another ends in the same bytes too.

    One that is empty or cannot be read equals no other: whoever needs its pixels says so.
    """
    keys: list[Hashable] = [(size, 0 if size else number) for number, size in enumerate(sizes.tolist())]
    for read, longer_than in ((read_end, 0), (read_whole, END)):
        counts = Counter(keys)
        tied = [number for number, key in enumerate(keys) if counts[key] > 1 and sizes[number] > longer_than]
        for number, digest in zip(tied, digest_each([files[number] for number in tied], read), strict=True):
            keys[number] = (keys[number], digest or number)
    return keys


def digest_each(files: list[str], read: Callable[[str], bytes]) -> Iterable[bytes | None]:
    block = 256  # a task for each single file would take longer than to read it

    def digest_block(start: int) -> list[bytes | None]:
        return [digest_file(file, read) for file in files[start: start + block]]
    with (tqdm(desc="looking for copies", total=len(files), unit="file", disable=None, leave=False) as bar,
          ThreadPoolExecutor(os.cpu_count()) as pool):
        for part in pool.map(digest_block, range(0, len(files), block)):
            yield from part
            bar.update(len(part))


def digest_file(file: str, read: Callable[[str], bytes]) -> bytes | None:
    try:
        return compute_digest(read(file))
    except OSError:
        return None


def read_end(file: str) -> bytes:
    with open(file, "rb", buffering=0) as stream:
        stream.seek(max(os.fstat(stream.fileno()).st_size - END, 0))
        return stream.read(END)


def read_whole(file: str) -> bytes:
    with open(file, "rb") as stream:
        return stream.read()


def compute_digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
