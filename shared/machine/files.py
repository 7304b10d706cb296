"""Files that are whole or not there: what every writer of the repository goes through."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shared.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then move it there: a reader sees the old file or the new, never half.

    Raises:
        UserError: where the disk is full or may not be written to; what was there before is still whole.
    """
    unfinished = path.with_name(f"{path.name}.unfinished")
    with undo_on_failure(path, unfinished):
        write(unfinished)
        os.replace(unfinished, path)


@contextlib.contextmanager
def undo_on_failure(path: Path, unfinished: Path) -> Iterator[None]:
    """Remove `unfinished` and raise `UserError` where `path` cannot be written."""
    try:
        yield
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written ({error.strerror or error}); what was there before is whole; make "
                        "room or choose another output_dir, and go on with resume=auto") from None


def append_line(path: Path, line: str) -> None:
    """Add a line to a file. Raises `UserError` where that cannot be done; a line cut short is dropped on resuming."""
    try:
        with path.open("a") as file:
            file.write(line)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}); make room or choose another "
                        "output_dir, and go on with resume=auto") from None


def to_json(content: dict, indent: int | None = None) -> str:
    """JSON text. NaN and infinity become null, since JSON has no word for them."""
    try:
        return json.dumps(content, indent=indent, allow_nan=False)
    except ValueError:
        return json.dumps(json.loads(json.dumps(content), parse_constant=lambda name: None), indent=indent)


def write_json(path: Path, content: dict) -> None:
    write_whole(path, lambda file: file.write_text(to_json(content, indent=2) + "\n"))


def write_arrays(path: Path, **arrays: Any) -> None:
    import numpy as np  # here, because --help comes by and must not wait for it

    def save(unfinished: Path) -> None:
        with unfinished.open("wb") as file:  # a file, because np.savez appends its own ending to a name
            np.savez_compressed(file, **arrays)
    write_whole(path, save)


def find_weight_file(given: str) -> Path:
    """The neutral weight file that a run folder or a path names. Raises `UserError`."""
    path = Path(given).expanduser()
    if path.is_dir():
        path = path / "best.safetensors"
    if not path.is_file():
        raise UserError(f"{path} does not exist; name a run folder that has finished an epoch, or a .safetensors file")
    return path


def find_last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that the run in `folder` can go on from. One whose writing was cut off does not count."""
    found = [path for name in ("last", "previous") for path in sorted(folder.glob(f"checkpoints/{name}.*"))]
    return next((path for path in found if path.suffix != ".unfinished"), None)
