"""Images decoded by threads, in order, and no more of them ahead than are soon needed."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps

from shared.artifacts.prediction.sources import Item
from shared.data.decode import describe_error, open_upright
from shared.data.preprocessing import Preprocessing
from shared.machine.console import tell_if_slow

TOGETHER = 8  # images that a thread reads at a time, since handing over a single small one costs as much as decoding it

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class ReadItem:
    """An item with its pixels, (S, S, C) of values 0 to 255, or with `error`, which says why there are none."""

    path: str
    label: str
    pixels: np.ndarray | None
    error: str = ""


def read_item(item: Item, preprocessing: Preprocessing) -> ReadItem:
    """Decode and scale an image as evaluation does. Whatever is wrong with a file becomes its `error`."""
    if item.error:
        return ReadItem(item.path, item.label, None, item.error)
    try:
        return ReadItem(item.path, item.label, preprocessing.scale(open_item(item)))
    except Exception as error:  # damaged files make decoders raise struct.error, zlib.error, IndexError and more
        return ReadItem(item.path, item.label, None, describe_error(item.path, error))


def open_item(item: Item) -> Image.Image:
    if item.image is None:
        return open_upright(item.path)
    if isinstance(item.image, Image.Image):
        return ImageOps.exif_transpose(item.image)  # a copy, since the image is the caller's
    return Image.fromarray(item.image[..., 0] if item.image.shape[2] == 1 else item.image)


def read_ahead(items: Iterable[T], read: Callable[[T], R], threads: int, ahead: int) -> Iterator[R]:
    """`read` of each item, in order. At most about `ahead` results, and TOGETHER at least, wait to be taken."""
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque()
        try:
            for some in split(items, TOGETHER):
                waiting.append(pool.submit(lambda some: [read(item) for item in some], some))
                if len(waiting) * TOGETHER > ahead:
                    yield from take(waiting)
            while waiting:
                yield from take(waiting)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # where whoever takes the results has had enough


def take(waiting: deque) -> list:
    with tell_if_slow("reading images"):
        return waiting.popleft().result()


def split(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items, the last of which may be shorter."""
    items = iter(items)
    while some := list(islice(items, size)):
        yield some
