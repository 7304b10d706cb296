"""Writing files so that a kill or a full disk never leaves half of one, and finding files that the user names."""

import contextlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shared.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]
GO_ON = "make room or choose another output_dir, and go on with resume=auto"


def write_whole(path: Path, write: Callable[[Path], object], apart: bool = False, advice: str = GO_ON) -> None:
    """Let `write` fill a file beside `path`, then move it to `path`: a reader sees the old file or the new one.

    Where other processes may be writing the same file, each fills one of its own, which is `apart` from theirs.

    Raises:
        UserError: where the disk is full or may not be written to; the old file is still whole then.
    """
    own = f".{secrets.token_hex(4)}" if apart else ""
    unfinished = path.with_name(f"{path.name}{own}.unfinished")
    with undo_on_failure(path, unfinished, advice):
        write(unfinished)
        os.replace(unfinished, path)


@contextlib.contextmanager
def undo_on_failure(path: Path, unfinished: Path, advice: str = GO_ON) -> Iterator[None]:
    """Where the block fails to write `path`: remove `unfinished` and raise `UserError`."""
    try:
        yield
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written ({error.strerror or error}); what was there before is whole; "
                        f"{advice}") from None


def append_line(path: Path, line: str) -> None:
    """Add a line to a file. A kill may cut it short; whoever reads the file passes such a last line over.

    Raises:
        UserError: where the disk is full or may not be written to.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}); {GO_ON}") from None


def to_json(content: dict, indent: int | None = None) -> str:
    """`content` as JSON. NaN and infinity become null, since JSON cannot express them."""
    try:
        return json.dumps(content, indent=indent, allow_nan=False)
    except ValueError:
        return json.dumps(json.loads(json.dumps(content), parse_constant=lambda name: None), indent=indent)


def write_json(path: Path, content: dict, apart: bool = False, advice: str = GO_ON) -> None:
    write_whole(path, lambda file: file.write_text(to_json(content, indent=2) + "\n", encoding="utf-8"), apart, advice)


def write_arrays(path: Path, *, apart: bool = False, **arrays: Any) -> None:
    import numpy as np  # here, because --help imports this module and must not wait for NumPy

    def save(unfinished: Path) -> None:
        with unfinished.open("wb") as file:  # an open file, because np.savez would add its own ending to a name
            np.savez_compressed(file, **arrays)
    write_whole(path, save, apart)


def expand_home(given: str | Path) -> Path:
    """A path with the ~ at its beginning filled in; as it is where nobody has such a home."""
    return Path(os.path.expanduser(given))


def find_weight_file(given: str) -> Path:
    """The neutral weight file that `given` names: itself, or best.safetensors in a run folder.

    Raises:
        UserError: where there is none.
    """
    path = expand_home(given)
    if os.path.isdir(path):
        path = path / "best.safetensors"
    if not os.path.isfile(path):  # False too for a path that is too long
        raise UserError(f"{path} does not exist; name a run folder that has finished an epoch, or a .safetensors file")
    return path


def find_last_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that the run in `folder` can go on from. One whose writing was cut off does not count."""
    found = [path for name in ("last", "previous") for path in sorted(folder.glob(f"checkpoints/{name}.*"))]
    return next((path for path in found if path.suffix != ".unfinished"), None)
