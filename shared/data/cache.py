"""dataset.cache: image files are decoded once, and all later reading takes their pixels from memory or from one file.

The file lies in the cache folder. Both siblings and all processes share it: one writes it, while the others wait. Its
name has a fingerprint of how the images are kept and of their paths, and one of the sizes and times of change of their
files, so that it is written anew where a file has changed.
"""

import itertools
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from tqdm import tqdm

from shared.config import Config
from shared.data.decode import (
    Frame,
    choose_shrinkage,
    make_central_box,
    name_bad_file,
    open_framed,
    open_header,
    read_image,
)
from shared.data.download import find_cache_folder, lock_folder
from shared.data.kept import COLUMNS, Form, Kept, make_ending, measure_sum, open_kept
from shared.data.loading import Data
from shared.data.sampling import fingerprint
from shared.errors import UserError
from shared.machine.files import undo_on_failure
from shared.machine.hardware import count_cores, measure_free_memory

FOLDER, ENDING = "decoded", ".images"
ADVICE = "name a folder on a larger disk in the environment variable TEMPLATE_CACHE, or leave dataset.cache out"


def cache_images(config: Config, data: Data) -> Data:
    """`data` whose files are decoded and kept as `dataset.cache` says.

    Raises:
        UserError: memory or disk is too small for the pixels, or a file cannot be read.
    """
    if config.dataset.cache == "none":
        return data
    forms = choose_forms(config, data.image_size)
    parts = {name: getattr(data, name) for name in forms}
    for form in dict.fromkeys(forms.values()):
        # What trains and what validates depends on the seed. Both are kept, so that all seeds share a file.
        names = [name for name in forms if forms[name] == form or (name == "val" and forms["train"] == form)]
        files = np.unique(np.concatenate([parts[name].files for name in names]))
        kept = keep_images(config, files, form)
        for name in names:
            if forms[name] == form:
                rows = np.searchsorted(files, parts[name].files)
                parts[name] = replace(parts[name], kept=kept.take(rows))
    return replace(data, **parts)


def choose_forms(config: Config, size: int) -> dict[str, Form]:
    """How the images of each part are kept: all of their pixels where random areas are cut out, and otherwise the
    square that is."""
    dataset = config.dataset
    square = Form("exact", size, dataset.center_crop, dataset.interpolation)
    if config.augment.crop != "resized":
        return {"train": replace(square, decode=dataset.decode), "val": square, "test": square}
    whole = Form(dataset.decode, 0 if dataset.decode == "exact" else size)
    others = whole if dataset.decode == "exact" else square
    return {"train": whole, "val": others, "test": others}


def keep_images(config: Config, files: np.ndarray, form: Form) -> Kept:
    """The `files`, (n,) str, decoded, in this order. Raises `UserError`."""
    paths, readers = files.tolist(), config.hardware.workers if config.hardware.workers > 0 else count_cores()
    if config.dataset.cache == "disk":
        return keep_on_disk(paths, form, readers)
    require_room("memory", "this machine", measure_needed(paths, form, readers), measure_free_memory(), form)
    pixels = bytearray()
    table = decode_into(pixels.extend, paths, form, readers)
    return Kept(form, np.frombuffer(pixels, np.uint8), table)


def keep_on_disk(paths: list[str], form: Form, readers: int) -> Kept:
    """The same, from the file that has them, which is written where it is missing, damaged or of other files."""
    names = fingerprint(np.array([repr(form), PIL.__version__, *paths]))
    folder = find_cache_folder() / FOLDER
    file = folder / f"{names}-{fingerprint(measure_states(paths))}{ENDING}"
    if kept := open_kept(file, form, len(paths)):
        return kept
    unfinished = file.with_suffix(".unfinished")
    with undo_on_failure(file, unfinished, ADVICE), lock_folder(folder):
        if kept := open_kept(file, form, len(paths)):  # which another process has written meanwhile
            return kept
        for left in folder.glob("*.unfinished"):  # a killed process left it, since nobody else has the lock
            left.unlink()
        require_room("disk", str(folder), measure_needed(paths, form, readers), shutil.disk_usage(folder).free, form)
        try:
            write_images(unfinished, paths, form, readers)
            os.replace(unfinished, file)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        for old in folder.glob(f"{names}-*{ENDING}"):  # of the same files before one of them changed
            if old != file:
                old.unlink()
    kept = open_kept(file, form, len(paths))
    assert kept is not None, f"{file} is not what was written"
    return kept


def write_images(file: Path, paths: list[str], form: Form, readers: int) -> None:
    with file.open("wb") as stream:
        table = decode_into(stream.write, paths, form, readers)
        stream.write(make_ending(table))
        stream.flush()
        os.fsync(stream.fileno())  # otherwise a crash of the machine may leave a file of zeros under the final name


def measure_states(paths: list[str]) -> np.ndarray:
    """Size in bytes and time of change in nanoseconds of each file, (n, 2) int64. Raises `UserError`."""
    try:
        return np.array([(state.st_size, state.st_mtime_ns) for state in map(os.stat, paths)], np.int64)
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}; remove the broken link, or restore the file") from error


def require_room(kind: str, place: str, needed: int, free: float, form: Form) -> None:
    """Raise `UserError` where `place` has fewer than the `needed` bytes."""
    if needed > free:
        smaller = "set dataset.decode=coarse, which keeps fewer pixels; " if form == Form("exact") else ""
        other = {"memory": "use dataset.cache=disk, or leave it out", "disk": ADVICE}[kind]
        raise UserError(f"dataset.cache={kind} needs {needed / 2**30:,.2f} GiB and {place} has {free / 2**30:,.2f} "
                        f"free; {smaller}{other}")


def measure_needed(paths: list[str], form: Form, readers: int) -> int:
    """The bytes of all images, as their headers tell."""
    if form.is_square:
        return len(paths) * form.size**2 * 3
    return sum(map_ahead(lambda path: measure_image(path, form), paths, readers, "reading sizes of images"))


def measure_image(path: str, form: Form) -> int:
    with name_bad_file(path), open_header(path) as image:
        factor = choose_shrinkage(min(image.size), form.size) if form.size and image.format in ("JPEG", "MPO") else 1
        return -(-image.width // factor) * -(-image.height // factor) * 3


def decode_into(write: Callable[[Any], object], paths: list[str], form: Form, readers: int) -> np.ndarray:
    """Hand the pixels of each image to `write`, in order, and return the table of `Kept`."""
    table, start = np.zeros((len(paths), COLUMNS), np.int64), 0
    images = map_ahead(lambda path: decode_kept(path, form), paths, readers, "decoding images once")
    for row, (pixels, checksum, frame) in zip(table, images, strict=True):
        write(pixels.reshape(-1))
        row[:] = start, *pixels.shape[:2], checksum, *frame
        start += pixels.size
    return table


def decode_kept(path: str, form: Form) -> tuple[np.ndarray, int, Frame]:
    """The pixels of an image in the given form, (H, W, 3) uint8, their CRC-32, and how they lie in the image."""
    if form.is_square:
        pixels = read_image(path, form.size, make_central_box(form.center_crop), form.interpolation, form.decode)
        frame = Frame(form.size, form.size)
    else:
        with name_bad_file(path):
            image, frame = open_framed(path, form.size, {"exact": None, "coarse": min}[form.decode])
            pixels = np.asarray(image)
    return pixels, measure_sum(np.ascontiguousarray(pixels)), frame


def map_ahead(function: Callable[[str], Any], paths: list[str], readers: int, title: str) -> Iterator[Any]:
    """What `function` makes of each path, in order, computed by so many threads, with a progress bar.

    They are a few images ahead and no more, since an image may have many megabytes.
    """
    with (ThreadPoolExecutor(readers) as pool,
          tqdm(desc=title, total=len(paths), unit="image", disable=None, leave=False) as bar):
        waiting, left = deque(), iter(paths)
        try:
            while True:
                more = itertools.islice(left, 2 * readers - len(waiting))
                waiting.extend(pool.submit(function, path) for path in more)
                if not waiting:
                    return
                yield waiting.popleft().result()
                bar.update()
        finally:
            for task in waiting:
                task.cancel()
