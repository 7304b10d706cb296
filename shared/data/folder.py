"""Image folders: which files there are and which class each of them shows."""

import os
import unicodedata
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from shared.data.decode import decode_image
from shared.data.endings import SYSTEM_FILES, SYSTEM_FOLDERS, LeftOut, is_systems, list_endings
from shared.errors import UserError

Listing = tuple[np.ndarray, np.ndarray]  # absolute paths (n,) str, labels (n,) int64

SPLITS = ("train", "val", "test")
LIKE_SPLITS = (*SPLITS, "training", "valid", "validation", "testing")


def scan_folder(root: Path, allow_empty: bool = False) -> tuple[tuple[str, ...], dict[str, Listing], LeftOut]:
    """Class names in sorted order, the image files of each split that the folder has, and what is left out.

    `root` holds train/<class>/... and maybe val/<class>/... and test/<class>/..., or else <class>/... directly, which
    is returned as train. Files count at any depth below a class, unless they are the system's own or not called as
    images are. They are ordered by class, then by path, the same on every file system.

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
        left_out = LeftOut()
        for place, used in {root: set(SPLITS) if present else classes["train"],
                            **{place: classes[name] for name, place in places.items()}}.items():
            list_unused(place, used, left_out)
        with tqdm(desc=f"looking through {root}", unit="class", total=sum(map(len, classes.values())), disable=None,
                  leave=False) as bar:
            listings = {name: list_images(place, classes[name], bar, allow_empty, left_out)
                        for name, place in places.items()}
    except OSError as error:
        raise UserError(f"{error.filename or root}: {error.strerror or error}; dataset.root has to name a folder that "
                        "can be read") from error
    return tuple(classes["train"]), listings, left_out


def refuse_misnamed_splits(root: Path) -> None:
    """Raise `UserError` where folders are called like splits, but not exactly so: they would be taken for classes, or
    would be left out."""
    alike = [name for name in list_subfolders(root) if name.lower() in LIKE_SPLITS]
    misnamed = [name for name in alike if name not in SPLITS]
    if misnamed and any(name.lower().startswith("train") for name in alike):
        raise UserError(f"{root / misnamed[0]} looks like a split; rename it, since splits are called "
                        f"{', '.join(SPLITS)}")


def list_subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder)
                  if entry.is_dir() and not is_systems(entry.name, SYSTEM_FOLDERS))


def list_unused(place: Path, used: Collection[str], left_out: LeftOut) -> None:
    """Add to `left_out` what lies in `place` beside the folders that are `used`."""
    for entry in os.scandir(place):
        if entry.name not in used and not is_systems(entry.name, SYSTEM_FOLDERS | SYSTEM_FILES):
            left_out.add(entry.path, is_folder=entry.is_dir())


def validate_classes(place: Path, found: list[str], train: Path, expected: list[str]) -> None:
    """Raise `UserError` where `place` does not hold the `expected` classes of `train`, or these are fewer than two."""
    if not expected:
        raise UserError(f"{train} holds no class folders; expected train/<class>/*.jpg or <class>/*.jpg in "
                        "dataset.root")
    if len(expected) == 1:
        raise UserError(f"{train} holds a single class folder, '{expected[0]}'; dataset.root has to name the folder "
                        "that holds train/<class>/*.jpg or <class>/*.jpg, with two classes or more")
    normal = [unicodedata.normalize("NFC", name) for name in expected]
    if twins := [name for name, same in zip(expected, normal, strict=True) if normal.count(same) > 1][:2]:
        raise UserError(f"{train} has two folders that read '{normal[expected.index(twins[0])]}', which Unicode can "
                        f"write in two ways, {' and '.join(map(ascii, twins))}; put their images into one of them")
    if len(found) < 2 and not set(found) & set(expected) and (images := find_images(str(place), LeftOut())):
        raise UserError(f"{place} holds {len(images)} images without their classes, which cannot be scored; move it "
                        f"out of dataset.root, or sort them into {place / '<class>'}")
    if lost := sorted(set(expected) - set(found)):
        alike = [name for name in found if name not in expected and simplify(name) == simplify(lost[0])]
        hint = f"; its {alike[0]!a} is {lost[0]!a} written otherwise, rename one of them" if alike else ""
        raise UserError(f"{place} has no folder for class '{lost[0]}' that {train} has; splits need the same classes"
                        f"{hint}")
    if extra := sorted(set(found) - set(expected)):
        raise UserError(f"{place} has a class '{extra[0]}' that {train} lacks; splits need the same classes")


def simplify(name: str) -> str:
    """What is left of a name where capitals, spaces around it and ways to write a character do not count."""
    return unicodedata.normalize("NFKC", name).casefold().strip()


def list_images(place: Path, classes: list[str], bar: tqdm, allow_empty: bool, left_out: LeftOut) -> Listing:
    files, labels = [], []
    for label, name in enumerate(classes):
        others = LeftOut()
        found = sorted(find_images(str(place / name), others))
        if not found and not allow_empty:
            but = f", but {others.describe()}" if others else ""
            raise UserError(f"{place / name} holds no images{but}; fill the class or remove it")
        left_out.update(others)
        files += found
        labels += [label] * len(found)
        bar.update()
    return np.array(files), np.array(labels, np.int64)


def find_images(folder: str, left_out: LeftOut) -> list[str]:
    """The image files below a folder. Other files are added to `left_out`, and the system's own are passed over."""
    files, seen = [], set()
    for here, folders, names in os.walk(folder, followlinks=True, onerror=raise_error):
        place = os.stat(here)
        if (place.st_dev, place.st_ino) in seen:  # a link to a folder above would be followed without end
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        folders[:] = [name for name in folders if not is_systems(name, SYSTEM_FOLDERS)]
        for name in names:
            if is_systems(name, SYSTEM_FILES):
                continue
            if name.lower().endswith(list_endings()):
                files.append(os.path.join(here, name))
            else:
                left_out.add(os.path.join(here, name))
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


def describe_skipped(skipped: list[str]) -> str:
    """One line about unreadable files that were left out."""
    more = f" and {len(skipped) - 5} more" if len(skipped) > 5 else ""
    return f"{len(skipped)} unreadable image files left out: {', '.join(skipped[:5])}{more}"
