"""Which files of a folder are images by their name, what belongs to the system, and what else is left out."""

import os
from collections import Counter
from dataclasses import dataclass, field
from functools import cache

from PIL import Image

from shared.data.decode import HEIF, list_formats

# What systems keep for themselves among a user's files, in lower case. None is a name that a person gives a class.
# Hidden files and folders are passed over too and need no entry: macOS' ._x.jpg, QNAP's .@__thumb, Jupyter's
# .ipynb_checkpoints.
SYSTEM_FOLDERS = frozenset({
    "@eadir", "@tmp", "#recycle", "#snapshot",              # Synology: thumbnails, waste, earlier states
    "@recycle", "@recently-snapshot",                       # QNAP
    "~snapshot",                                            # NetApp
    "lost+found",                                           # Linux, at the root of a disk
    "$recycle.bin", "system volume information", "found.000", "dfsrprivate",  # Windows
    "__macosx", "network trash folder", "temporary items",  # macOS, in archives and on file servers
    "__pycache__",                                          # Python
})
SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})  # Windows, and macOS' icon of a folder

# The usual endings. They stand first, because a file without a name of its own gets the first one of its format.
USUAL = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm")


@cache
def list_endings() -> tuple[str, ...]:
    """The endings of image files in lower case: of every format that `decode.py` reads."""
    formats = list_formats()
    # MPO, several JPEG images in one file, has no entry of its own among what can be opened, since JPEG's opens it.
    found = [ending for ending, name in Image.registered_extensions().items()
             if name in formats or name == "MPO"]
    return (*USUAL, *sorted(set(found) - set(USUAL)))


def is_systems(name: str, own: frozenset[str]) -> bool:
    return name.startswith(".") or name.lower() in own


@dataclass
class LeftOut:
    """Files and folders that are no part of the data set, by the endings of the files."""

    endings: Counter[str] = field(default_factory=Counter)
    folders: list[str] = field(default_factory=list)
    first: str = ""  # the path that comes first, the same on every file system

    def add(self, path: str, is_folder: bool = False) -> None:
        if is_folder:
            self.folders.append(os.path.basename(path))
        else:
            self.endings[os.path.splitext(path)[1].lower()] += 1
        self.first = min(self.first or path, path)

    def update(self, other: "LeftOut") -> None:
        self.endings.update(other.endings)
        self.folders += other.folders
        self.first = min(filter(None, (self.first, other.first)), default="")

    def describe(self) -> str:
        """In words, what there is; empty where there is nothing."""
        def name(number: int, what: str) -> str:
            return f"{number:,} {what}{'' if number == 1 else 's'}"
        endings = sorted(self.endings.items(), key=lambda item: (-item[1], item[0]))
        parts = [f"{name(number, 'file')} {f'ending in {ending}' if ending else 'without an ending'}"
                 for ending, number in endings[:5]]
        if len(endings) > 5:
            parts.append(f"{name(sum(number for _, number in endings[5:]), 'file')} with other endings")
        if self.folders:
            more = ", ..." if len(self.folders) > 5 else ""
            parts.append(f"{name(len(self.folders), 'folder')} ({', '.join(sorted(self.folders)[:5])}{more})")
        return ", ".join(parts) + self.advise()

    def __bool__(self) -> bool:
        return bool(self.first)

    def advise(self) -> str:
        """What to install where it would help, as the end of a sentence."""
        needed = [ending for ending in HEIF if ending in self.endings and ending not in list_endings()]
        return f" (for {' and '.join(needed)}: pip install pillow-heif)" if needed else ""
