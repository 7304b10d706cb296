"""python -m shared.upgrade: which packages are installed in another version than constraints.txt has."""

import re
from importlib import metadata

from shared.machine.files import REPOSITORY


def list_moved_packages(constraints: str) -> list[tuple[str, str, str]]:
    """Name, version in `constraints`, the text of a constraints file, and version here, of each that differs."""
    moved = []
    for name, pinned in re.findall(r"^([\w.-]+)==(\S+)", constraints, re.MULTILINE):
        try:
            here = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if here != pinned:
            moved.append((name, pinned, here))
    return moved


def main() -> None:
    moved = list_moved_packages((REPOSITORY / "constraints.txt").read_text(encoding="utf-8"))
    for name, pinned, here in moved:
        print(f"{name:32} {pinned:16} {here}")
    print(f"{len(moved)} packages differ from constraints.txt" if moved else
          "every package that is installed has the version of constraints.txt")


if __name__ == "__main__":
    main()
