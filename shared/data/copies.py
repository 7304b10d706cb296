"""The same image in two of the parts that train, validate and test."""

import os
from collections import Counter

import numpy as np

from shared.data.duplicates import Copy, digest_files, digest_pixels, find_copies
from shared.data.images import Images, list_file_sizes
from shared.errors import UserError

# Who keeps an image that two parts have: the test images are the same for every seed, so they come first.
ORDER = ("test", "val", "train")

# With `warn` more files are not compared: many of them would be read at each start, which from a hard disk or a network
# drive takes hours for a million.
MOST_FILES = 200_000


def settle_copies(parts: dict[str, Images], policy: str, root: str) -> tuple[dict[str, Images], list[str]]:
    """The parts train, val and test as `policy`, which is dataset.on_duplicate, wants them, and lines about copies.

    With `drop`, images that are in the test part leave the other two, and those that are in the validation part leave
    the training part.

    Raises:
        UserError: with `stop`, where an image is in two parts.
    """
    number = sum(map(len, parts.values()))
    if policy == "warn" and parts["train"].files is not None and number > MOST_FILES:
        return parts, [f"copies are not looked for among {number:,} files, since it takes long; "
                       "dataset.on_duplicate=drop and stop do it"]
    copies = list(find_copies(list_contents({part: parts[part] for part in ORDER})))
    crossing = [copy for copy in copies if copy.part != copy.other_part]
    lines = describe_conflicts(copies, parts, root)
    if crossing:
        counts = Counter((copy.part, copy.other_part) for copy in crossing)
        which = ", ".join(f"{number:,} of {part} in {other}" for (part, other), number in counts.items())
        told = f"the same images, byte for byte, are in two parts: {which}; {describe_pair(crossing[0], parts, root)}"
        if policy == "stop":
            raise UserError(f"{told}; remove one of each, or set dataset.on_duplicate=drop")
        advice = f"these {len(crossing):,} are left out" if policy == "drop" else "dataset.on_duplicate=drop helps"
        lines.append(f"{told}; {advice}")
    if policy == "drop":
        for part in {copy.part for copy in crossing}:
            keep = np.ones(len(parts[part]), bool)
            keep[[copy.row for copy in crossing if copy.part == part]] = False
            parts = {**parts, part: parts[part].take(keep)}
    return parts, lines


def list_contents(parts: dict[str, Images]) -> dict[str, list]:
    """A key for each image of each part, equal for equal images."""
    if parts["train"].pixels is not None:
        return {part: digest_pixels(images.pixels) for part, images in parts.items()}
    files = [file for images in parts.values() for file in images.files.tolist()]
    keys = digest_files(files, np.concatenate([list_file_sizes(images) for images in parts.values()]))
    ends = np.cumsum([len(images) for images in parts.values()])
    return {part: keys[end - len(images): end] for (part, images), end in zip(parts.items(), ends, strict=True)}


def describe_conflicts(copies: list[Copy], parts: dict[str, Images], root: str) -> list[str]:
    """A line about images that are there twice, within a part or across two, under two classes; or no line."""
    found = [copy for copy in copies
             if parts[copy.part].labels[copy.row] != parts[copy.other_part].labels[copy.other_row]]
    if not found:
        return []
    return [f"{len(found):,} image{' is' if len(found) == 1 else 's are'} there under another class too; "
            f"{describe_pair(found[0], parts, root)}; one of the classes is wrong"]


def describe_pair(copy: Copy, parts: dict[str, Images], root: str) -> str:
    def name(part: str, row: int) -> str:
        files = parts[part].files
        return f"number {row} of {part}" if files is None else os.path.relpath(files[row], root)
    return f"the first is {name(copy.part, copy.row)}, the same as {name(copy.other_part, copy.other_row)}"
