"""Folders of photographs in several sizes, made of the two that scikit-learn brings."""

from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

NAMES = ("china", "flower")
QUALITY = 90  # of the JPEGs


def write_photographs(root: Path, width: int, height: int, count: int, seed: int = 0) -> None:
    """Write `count` JPEGs of width x height to `root`/train/<class>, and one of each class to val and to test.

    Each is a window of scikit-learn's photograph, tiled, with noise of its own, so that a decoder has as much detail to
    decode as in a camera's.
    """
    from sklearn.datasets import load_sample_image

    draws = np.random.default_rng(seed)
    tiles = {name: load_sample_image(f"{name}.jpg") for name in NAMES}
    splits = {"train": count, "val": 2, "test": 2}
    files = [root / split / NAMES[i % 2] / f"{i:04}.jpg" for split, images in splits.items() for i in range(images)]
    for file in tqdm(files, f"making photographs of {width}x{height}", unit="image", disable=None, leave=False):
        tile = tiles[file.parent.name]
        top, left = (int(draws.integers(length)) for length in tile.shape[:2])
        rows, columns = (np.arange(top, top + height) % tile.shape[0], np.arange(left, left + width) % tile.shape[1])
        pixels = tile[rows][:, columns] + draws.integers(-8, 9, (height, width, 3), np.int16)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, quality=QUALITY)
