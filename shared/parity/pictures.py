"""Folders of image files: some that different decoders may read differently, and some of noise."""

from pathlib import Path

import numpy as np
from PIL import Image

ORIENTATION = 0x0112  # EXIF tag
PER_CLASS = 8


def write_pictures(root: Path) -> Path:
    """Write <root>/<class>/*.jpg and *.png in two classes, and return `root`.

    There are colour, grey, palette, transparent and EXIF-rotated files of odd sizes, one of them a pixel wide and one
    smaller than the model's input.
    """
    for label, name in enumerate(("even", "odd")):
        folder = root / name
        folder.mkdir(parents=True)
        for number in range(PER_CLASS):
            write_picture(folder, number, np.random.default_rng([label, number]))
    return root


def write_noise(root: Path, size: int, per_class: int) -> Path:
    """Write <root>/<class>/*.png of random pixels in two classes, and return `root`."""
    for label, name in enumerate(("even", "odd")):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number, pixels in enumerate(np.random.default_rng(label).integers(0, 256, (per_class, size, size, 3),
                                                                              np.uint8)):
            Image.fromarray(pixels).save(root / name / f"{number:03d}.png")
    return root


def write_picture(folder: Path, number: int, random: np.random.Generator) -> None:
    height, width = ((47, 31), (32, 32), (29, 64), (101, 77), (13, 9), (40, 1), (33, 50), (57, 57))[number]
    pixels = random.integers(0, 256, (height, width, 4), np.uint8)
    image = Image.fromarray(pixels[..., :3])
    if number in (0, 3):
        exif = Image.Exif()
        exif[ORIENTATION] = 6 if number == 0 else 5  # rotated by a quarter turn; rotated and mirrored
        image.save(folder / f"{number}.jpg", quality=80, exif=exif)
    elif number == 1:
        image.convert("L").save(folder / f"{number}.jpg", quality=90)
    elif number == 2:
        image.convert("L").save(folder / f"{number}.png")
    elif number == 6:
        image.quantize(16).save(folder / f"{number}.png")
    elif number == 7:
        Image.fromarray(pixels).save(folder / f"{number}.png")  # with transparency
    else:
        image.save(folder / f"{number}.{'jpg' if number == 4 else 'png'}")
