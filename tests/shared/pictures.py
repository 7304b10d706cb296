"""Image folders that tests make."""

import os
from dataclasses import replace

from PIL import Image

from shared.config import Config


def config_for(root, name="image_folder", seed=0, **dataset):
    config = Config(seed=seed)
    config.train.batch_size = 4
    config.dataset = replace(config.dataset, name=name, root=str(root), **dataset)
    return config


def make_pictures(root, layout, ending=".png"):
    """Write {path below the root: number of files}. No two files of one call have the same colour."""
    made = 0
    for place, count in layout.items():
        (root / place).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.new("RGB", (6, 4), (made % 256, made // 256, 0)).save(root / place / f"{number:03}{ending}")
            made += 1
    return root


def names(images, root):
    """The files of images, below the root."""
    return [os.path.relpath(file, root) for file in images.files.tolist()]
