"""Which images are named: by files, folders, patterns and names on standard input, found one after the other."""

import glob
import os
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from shared.data.endings import SYSTEM_FILES, SYSTEM_FOLDERS, is_systems, list_endings
from shared.data.folder import list_subfolders
from shared.data.imagenet import read_synsets
from shared.errors import UserError

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class Item:
    """An image to be asked about: a file's `path`, or an `image` in memory, which has no path. `label` is the class of
    the folder that it lies in, empty where that is not known, and `error` says why there is nothing to be read."""

    path: str
    label: str = ""
    image: Image.Image | np.ndarray | None = None
    error: str = ""


@dataclass(frozen=True)
class Source:
    """A file, a folder, or standard input. `labels` holds the class of each sub-folder of a folder whose sub-folders
    are all called like classes."""

    path: str
    labels: dict[str, str] = field(default_factory=dict)

    def list_items(self) -> Iterator[Item]:
        if self.path == STANDARD_INPUT:
            return map(Item, read_names())
        return walk_folder(self.path, self.labels) if os.path.isdir(self.path) else iter([Item(self.path)])


def find_sources(words: list[str], classes: tuple[str, ...]) -> tuple[list[Source], list[str]]:
    """What the words of a command line name, and remarks about it, a line each.

    Raises:
        UserError: where a word names nothing, or a folder that holds no images.
    """
    if words.count(STANDARD_INPUT) > 1:
        raise UserError(f"standard input ('{STANDARD_INPUT}') is named twice and can be read only once; name it once")
    sources, remarks = [], []
    for path in (path for word in words for path in expand_word(word)):
        labels = {}
        if path != STANDARD_INPUT and os.path.isdir(path):
            if next(walk_folder(path), None) is None:
                raise UserError(f"{path} holds no images at any depth; name a folder with files that end in .jpg, .png "
                                "or another ending of images")
            labels = name_classes(path, classes)
            if strangers := [name for name, label in labels.items() if not label]:
                if len(strangers) < len(labels):
                    remarks.append(f"{path} gives no labels, since its sub-folder '{strangers[0]}' is called like none "
                                   "of the classes")
                labels = {}
        sources.append(Source(path, labels))
    return sources, remarks


def expand_word(word: str) -> list[str]:
    """The path that a word is, or the files that match it, sorted. Raises `UserError` where there are none."""
    path = os.path.expanduser(word)
    if word == STANDARD_INPUT or os.path.lexists(path):
        return [path]
    if found := sorted(match for match in glob.glob(path, recursive=True) if not os.path.isdir(match)):
        return found
    raise UserError(f"{word} does not exist, and no file matches it; name image files, folders, patterns such as "
                    f"'images/**/*.jpg' in quotes, or {STANDARD_INPUT} for names on standard input")


def name_classes(folder: str, classes: tuple[str, ...]) -> dict[str, str]:
    """For each sub-folder the class that it is called like, by its name or by ImageNet's number; empty where none is.

    Unicode writes some names in two ways, which count as the same.
    """
    try:
        folders = list_subfolders(Path(folder))
    except OSError:
        return {}
    known = {unicodedata.normalize("NFC", name): name for name in classes}
    return {name: known.get(unicodedata.normalize("NFC", name)) or known.get(read_synsets().get(name, ""), "")
            for name in folders}


def walk_folder(folder: str, labels: dict[str, str] | None = None) -> Iterator[Item]:
    """The image files at any depth, ordered by path, the same on every file system. Of names, no more are kept than
    those of the folders on the way to the present file. A folder that cannot be read is an item with its error."""
    labels, seen = labels or {}, set()
    waiting = [(folder, True, "")]  # path, whether it is a folder, label; the next one is the last
    while waiting:
        path, is_folder, label = waiting.pop()
        if not is_folder:
            yield Item(path, label)
            continue
        found = []
        try:
            place = os.stat(path)
            if (place.st_dev, place.st_ino) in seen:  # a link to a folder above would be followed without end
                continue
            seen.add((place.st_dev, place.st_ino))
            with os.scandir(path) as entries:
                for entry in entries:
                    if leads_to_folder(entry):
                        if not is_systems(entry.name, SYSTEM_FOLDERS):
                            own = labels.get(entry.name, "") if path == folder else label
                            found.append((entry.path, True, own))
                    elif not is_systems(entry.name, SYSTEM_FILES) and entry.name.lower().endswith(list_endings()):
                        found.append((entry.path, False, label))
        except OSError as error:
            yield Item(path, label, error=error.strerror or str(error))
        # As whole paths are ordered, in which a separator follows a folder's name.
        waiting += sorted(found, key=lambda entry: entry[0] + os.sep * entry[1], reverse=True)


def leads_to_folder(entry: os.DirEntry) -> bool:
    """Whether an entry is a folder; not where it is a link in a circle, of which reading tells what is wrong."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def read_names() -> Iterator[str]:
    """The names on standard input, one on each line, as they come. Raises `UserError` where they are none."""
    for line in sys.stdin.buffer if sys.stdin else ():
        if b"\0" in line:
            raise UserError("standard input holds other bytes than names; write the names of image files, one on each "
                            "line (with find, -print and not -print0)")
        if name := line.rstrip(b"\r\n"):
            yield os.fsdecode(name)
