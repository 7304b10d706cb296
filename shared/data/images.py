"""Labelled images, in memory or in files, and what tells one set of them from another."""

import os
from dataclasses import dataclass

import numpy as np
from PIL import Image

from shared.data.decode import open_rgb
from shared.data.kept import Kept
from shared.errors import UserError


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images: one array in memory, or files that are decoded when they are needed. The arrays are read-only.

    `files` is an array of fixed width, because the processes that read images share its memory. A list of strings would
    be copied into each process page by page, since reading a string changes its reference count. `kept` is what the
    files were decoded to, where that is kept.
    """

    labels: np.ndarray          # (n,) int64
    pixels: np.ndarray | None   # (n, H, W, C) uint8, C is 1 or 3
    files: np.ndarray | None    # (n,) str of fixed width, absolute paths
    kept: Kept | None = None

    def __post_init__(self) -> None:
        assert (self.pixels is None) != (self.files is None), "either pixels or files"
        for name in ("labels", "pixels", "files"):
            array = getattr(self, name)
            if array is not None:
                assert len(array) == len(self.labels), f"{len(array)} {name} for {len(self.labels)} labels"
                view = array.view()
                view.flags.writeable = False
                object.__setattr__(self, name, view)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def takes_time(self) -> bool:
        """Whether reading an image is more than to copy its pixels."""
        return self.files is not None and not (self.kept and self.kept.form.is_square)

    def take(self, indices: np.ndarray) -> "Images":
        """The images at these positions, (k,) integers or (n,) bool, in this order."""
        return Images(self.labels[indices], None if self.pixels is None else self.pixels[indices],
                      None if self.files is None else self.files[indices], self.kept and self.kept.take(indices))


def open_image(images: Images, place: int) -> Image.Image:
    """The image at `place`, of mode RGB or, where there is a single channel in memory, L.

    Raises:
        UserError: where its file cannot be read.
    """
    return open_rgb(images.files[place]) if images.pixels is None else Image.fromarray(drop_grey(images.pixels[place]))


def drop_grey(pixels: np.ndarray) -> np.ndarray:
    """(H, W, C) uint8 as Pillow wants it: (H, W) where there is a single channel."""
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def list_content(images: Images, root: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and pixels or paths relative to `root`: what one set of images differs from another by."""
    if images.files is None:
        return images.labels, images.pixels
    return images.labels, np.array([file.removeprefix(root).lstrip("/") for file in images.files.tolist()], np.str_)


def list_file_sizes(images: Images) -> np.ndarray:
    """The size of each file, (n,) int64, in bytes. Raises `UserError` where one is missing."""
    try:
        return np.array([os.path.getsize(file) for file in images.files.tolist()], np.int64)
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}; remove the broken link, or restore the file") from error
