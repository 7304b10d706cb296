"""Decoded images that are kept: the pixels of all of them in one row, in memory or mapped from a file."""

import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from shared.data.decode import Box, Frame, scale_image

# The file ends in the table, a row of int64 for each image, and these 32 bytes: the mark, the number of images, and a
# digest of the table. A row holds where the pixels begin, their rows, columns and CRC-32, and the five of a `Frame`.
MARK = b"kept-1\0\0"
COLUMNS = 9
SAMPLE = 16  # images whose CRC is compared when a file is opened, evenly spread


@dataclass(frozen=True)
class Form:
    """How images are kept: decoded as dataset.`decode` says for a model that sees `size` pixels; whole, or as the
    central square that evaluation sees, scaled to `size`, where there is an `interpolation`. `size` is 0 where it
    changes nothing."""

    decode: str
    size: int = 0
    center_crop: float = 1.0
    interpolation: str = ""

    @property
    def is_square(self) -> bool:
        return bool(self.interpolation)


@dataclass(frozen=True, eq=False)
class Kept:
    """Images of one `form`. `file` is where `pixels`, (bytes,) uint8, is mapped from; None where it is in memory."""

    form: Form
    pixels: np.ndarray
    table: np.ndarray  # (n, COLUMNS) int64
    file: Path | None = None

    def take(self, rows: np.ndarray) -> "Kept":
        return Kept(self.form, self.pixels, self.table[rows], self.file)

    def get_pixels(self, index: int) -> np.ndarray:
        """An image as it is kept, (H, W, 3) uint8."""
        start, rows, columns = self.table[index, :3].tolist()
        return self.pixels[start:start + rows * columns * 3].reshape(rows, columns, 3)

    def read_squares(self, indices: np.ndarray) -> np.ndarray:
        """Images that are kept as squares, (n, S, S, 3) uint8."""
        size = self.form.size
        squares = self.pixels.reshape(-1, size, size, 3)
        return squares[self.table[indices, 0] // (size * size * 3)]

    def read_part(self, index: int, size: int, box: Box, interpolation: str) -> np.ndarray:
        """The same as `decode.read_image` returns, of an image that is kept whole."""
        pixels, frame = self.get_pixels(index), Frame(*self.table[index, 4:].tolist())
        return scale_array(pixels, size, frame.shrink(box(frame.height, frame.width)), interpolation)

    def __reduce__(self) -> tuple:
        # A process that reads images maps the file itself, since the pixels of all images would be sent to it.
        content = self.pixels if self.file is None else len(self.pixels)
        return restore_kept, (self.form, content, self.table, self.file)


def restore_kept(form: Form, content: Any, table: np.ndarray, file: Path | None) -> Kept:
    pixels = content if file is None else map_bytes(file)[:content]
    return Kept(form, pixels, table, file)


def map_bytes(file: Path) -> np.ndarray:
    return np.asarray(np.memmap(file, np.uint8, "r"))


def scale_array(pixels: np.ndarray, size: int, box: tuple[float, float, float, float],
                interpolation: str) -> np.ndarray:
    """`decode.scale_image` of pixels (H, W, 3) uint8, (size, size, 3) uint8, to the last bit.

    Only what the filter reaches is handed to Pillow. It takes the edges of a box as float32, which stay exact when
    whole numbers are taken away after they have been rounded to it.
    """
    height, width = pixels.shape[:2]
    edges = np.float32([max(box[0], 0), max(box[1], 0), min(box[0] + box[2], height), min(box[1] + box[3], width)])
    reach = {"bilinear": 1, "bicubic": 2}[interpolation] * np.maximum((edges[2:] - edges[:2]) / size, 1) + 1
    top, left = np.maximum(np.floor(edges[:2] - reach), 0).astype(int).tolist()
    bottom, right = np.minimum(np.ceil(edges[2:] + reach), (height, width)).astype(int).tolist()
    # Which axis Pillow 13 scales first, and rounds after it, follows from the shape of the image: the height where it
    # shrinks, and by more than twice as much as the width. What it is handed must have the same answer.
    if height - size > max(2 * (width - size), 0):
        top, bottom = widen(top, bottom, size + max(2 * (right - left - size), 0) + 1, height)
    elif bottom - top > size:
        left, right = widen(left, right, size + (bottom - top - size + 1) // 2, width)
    near = pixels[top:bottom, left:right]
    stride = pixels.strides[0]
    # The bytes from the first pixel to the last one, because Pillow can leave out what lies between rows itself.
    flat = np.lib.stride_tricks.as_strided(near, ((bottom - top - 1) * stride + (right - left) * 3,), (1,))
    image = Image.frombytes("RGB", (right - left, bottom - top), flat, "raw", "RGB", stride, 1)
    first, second = edges[:2].astype(float) - (top, left), edges[2:].astype(float) - (top, left)
    return scale_image(image, size, (*first.tolist(), *(second - first).tolist()), interpolation)


def widen(first: int, last: int, least: int, most: int) -> tuple[int, int]:
    """A range within [0, most) that holds the given one and has at least `least` places, if there are so many."""
    last = min(max(last, first + least), most)
    return max(min(first, last - least), 0), last


def measure_sum(pixels: np.ndarray) -> int:
    return zlib.crc32(pixels)


def digest_table(table: np.ndarray) -> bytes:
    return hashlib.sha256(table.tobytes()).digest()[:16]


def make_ending(table: np.ndarray) -> bytes:
    """What the file holds behind the pixels."""
    return table.tobytes() + MARK + len(table).to_bytes(8, "little") + digest_table(table)


def open_kept(file: Path, form: Form, images: int) -> Kept | None:
    """The images of a file; None where there is none, or where it is damaged or not whole."""
    try:
        content = map_bytes(file)
    except (OSError, ValueError):  # an empty file cannot be mapped
        return None
    end = len(content) - images * COLUMNS * 8 - 32
    if end < 0:
        return None
    table = np.frombuffer(content[end:-32].tobytes(), np.int64).reshape(images, COLUMNS)
    if content[end:].tobytes() != make_ending(table):
        return None
    kept = Kept(form, content[:end], table, file)
    sample = np.unique(np.linspace(0, images - 1, min(SAMPLE, images)).astype(int)).tolist()
    return kept if all(measure_sum(kept.get_pixels(index)) == table[index, 3] for index in sample) else None
