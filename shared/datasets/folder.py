"""Image folders: which files there are and which class each of them shows."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from shared.datasets.decode import decode_image
from shared.errors import UserError

Listing = tuple[np.ndarray, np.ndarray]  # absolute paths (n,) str, labels (n,) int64

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm")
SPLITS = ("train", "val", "test")
LIKE_SPLITS = (*SPLITS, "training", "valid", "validation", "testing")


def scan_folder(root: Path, allow_empty: bool = False) -> tuple[tuple[str, ...], dict[str, Listing]]:
    """Class names in sorted order, and the image files of each split that the folder has.

    `root` holds train/<class>/... and maybe val/<class>/... and test/<class>/..., or else <class>/... directly, which
    is returned as train. Files count at any depth below a class, unless they are hidden or not called as images are.
    They are ordered by class, then by path, the same on every file system.

    Raises:
        UserError: a folder is missing or unreadable, the splits have different classes, or a class has no images, which
            `allow_empty` allows.
    """
    try:
        refuse_misnamed_splits(root)
        present = {name: root / name for name in SPLITS if (root / name).is_dir()}
        if present and "train" not in present:
            raise UserError(f"{root} has {' and '.join(present)} but no train folder; expected {root / 'train'}")
        places = present or {"train": root}
        classes = {name: list_subfolders(place) for name, place in places.items()}
        for name, found in classes.items():
            validate_classes(places[name], found, places["train"], classes["train"])
        with tqdm(desc=f"looking through {root}", unit="class", total=sum(map(len, classes.values())), disable=None,
                  leave=False) as bar:
            listings = {name: list_images(place, classes[name], bar, allow_empty) for name, place in places.items()}
    except OSError as error:
        raise UserError(f"{error.filename or root}: {error.strerror or error}; dataset.root has to name a folder that "
                        "can be read") from error
    return tuple(classes["train"]), listings


def refuse_misnamed_splits(root: Path) -> None:
    """Raise `UserError` where folders are called like splits, but not exactly so: they would be taken for classes, or
    would be left out."""
    alike = [name for name in list_subfolders(root) if name.lower() in LIKE_SPLITS]
    misnamed = [name for name in alike if name not in SPLITS]
    if misnamed and any(name.lower().startswith("train") for name in alike):
        raise UserError(f"{root / misnamed[0]} looks like a split; rename it, since splits are called "
                        f"{', '.join(SPLITS)}")


def list_subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def validate_classes(place: Path, found: list[str], train: Path, expected: list[str]) -> None:
    """Raise `UserError` where `place` does not hold the `expected` classes of `train`, or these are fewer than two."""
    if not expected:
        raise UserError(f"{train} holds no class folders; expected train/<class>/*.jpg or <class>/*.jpg in "
                        "dataset.root")
    if len(expected) == 1:
        raise UserError(f"{train} holds a single class folder, '{expected[0]}'; dataset.root has to name the folder "
                        "that holds train/<class>/*.jpg or <class>/*.jpg, with two classes or more")
    if lost := sorted(set(expected) - set(found)):
        raise UserError(f"{place} has no folder for class '{lost[0]}' that {train} has; splits need the same classes")
    if extra := sorted(set(found) - set(expected)):
        raise UserError(f"{place} has a class '{extra[0]}' that {train} lacks; splits need the same classes")


def list_images(place: Path, classes: list[str], bar: tqdm, allow_empty: bool) -> Listing:
    files, labels = [], []
    for label, name in enumerate(classes):
        found = sorted(find_images(str(place / name)))
        if not found and not allow_empty:
            raise UserError(f"{place / name} holds no images ({' '.join(EXTENSIONS)}); fill the class or remove it")
        files += found
        labels += [label] * len(found)
        bar.update()
    return np.array(files), np.array(labels, np.int64)


def find_images(folder: str) -> list[str]:
    files, seen = [], set()
    for here, folders, names in os.walk(folder, followlinks=True, onerror=raise_error):
        place = os.stat(here)
        if (place.st_dev, place.st_ino) in seen:  # a link to a folder above would be followed without end
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [os.path.join(here, name) for name in names
                  if name.lower().endswith(EXTENSIONS) and not name.startswith(".")]
    return files


def raise_error(error: OSError) -> None:
    raise error  # without this, os.walk leaves out a folder that it cannot read


def find_unreadable(files: np.ndarray) -> np.ndarray:
    """Which of the files cannot be decoded, (n,) bool. Every file is read, which takes about as long as an epoch."""
    block = 64  # a task for each single file would fill the memory where there are millions
    starts = range(0, len(files), block)
    with (tqdm(desc="checking images", total=len(files), unit="image", disable=None, leave=False) as bar,
          ThreadPoolExecutor(os.cpu_count()) as pool):
        bad = []
        for part in pool.map(lambda start: [is_unreadable(file) for file in files[start: start + block]], starts):
            bad += part
            bar.update(len(part))
    return np.array(bad, bool)


def is_unreadable(file: str) -> bool:
    try:
        decode_image(file)
    except UserError:
        return True
    return False


def report_skipped(skipped: list[str]) -> None:
    if skipped:
        more = f" and {len(skipped) - 5} more" if len(skipped) > 5 else ""
        print(f"{len(skipped)} unreadable image files left out: {', '.join(skipped[:5])}{more}", file=sys.stderr)
