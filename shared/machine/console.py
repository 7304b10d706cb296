"""What the commands print: lines on stderr, tables for a terminal or for Markdown, and numbers in them."""

import contextlib
import itertools
import os
import re
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from threading import Thread

from shared.machine.hardware import has_nvidia_gpu

WIDTH = 100  # columns of the terminal that tables and sentences have to fit into


@dataclass(frozen=True)
class Table:
    """Rows of text under a `header`. The first column names the rows, the others hold what belongs to them."""
    header: list[str]
    rows: list[list[str]]

    def to_text(self, columns: float = WIDTH) -> str:
        """The table for a terminal: the first column to the left, the others to the right, and long cells wrapped so
        that a line has at most `columns` characters where that is possible."""
        lines = [self.header, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.header))]
        if sum(widths) + 2 * len(widths[1:]) > columns:
            equal = max((columns - widths[0]) // len(widths[1:]) - 2, 12)  # a number fits, so that none is broken
            widths[1:] = [min(equal, width) for width in widths[1:]]
        written = []
        for line in lines:
            cells = [textwrap.wrap(cell, width) or [""] for cell, width in zip(line, widths, strict=True)]
            for row in itertools.zip_longest(*cells, fillvalue=""):
                written.append("  ".join(part.rjust(width) if column else part.ljust(width) for column, (part, width)
                                         in enumerate(zip(row, widths, strict=True))).rstrip())
        return "\n".join([written[0], "-" * (sum(widths) + 2 * len(widths) - 2), *written[1:]])

    def to_markdown(self) -> str:
        head = ["---", *["---:"] * (len(self.header) - 1)]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"
                         for line in [self.header, head, *self.rows])


def format_percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def format_points(value: float) -> str:
    """A difference of two shares, `value`, in percentage points."""
    return f"{100 * value:+.2f} points".replace("-", "−")


def say(*words: object, leader: bool = True) -> None:
    """Print to stderr. Where several processes share a run, only its `leader` prints."""
    if leader:
        print(*words, file=sys.stderr, flush=True)


PATIENCE = 60  # seconds
waits: dict[object, tuple[str, float]] = {}  # what each block of `tell_if_slow` does, and since when


@contextlib.contextmanager
def tell_if_slow(what: str) -> Iterator[None]:
    """Print a line where the block takes longer than PATIENCE, so that nobody waits without knowing for what."""
    start_watching()
    mark = object()
    waits[mark] = what, time.monotonic()
    try:
        yield
    finally:
        waits.pop(mark, None)


@cache
def start_watching() -> None:
    """Start the thread that prints the lines. It is one for all blocks, since a block may be a few microseconds."""
    def watch() -> None:
        while True:
            time.sleep(PATIENCE / 10)
            for mark, (what, since) in list(waits.items()):
                if time.monotonic() - since > PATIENCE and waits.pop(mark, None):
                    say(f"{what} has taken {PATIENCE} seconds and goes on; is a disk or a network drive gone?")
    Thread(target=watch, daemon=True).start()


# Lines of the logging library of TensorFlow's C++ code: level, month and day, time, thread, file.
LOG_LINE = re.compile(r"([IWEF])\d{4} [\d:.]+ +\d+ \S+:\d+\] |WARNING: All log messages before absl::|"
                      r"To enable the following instructions:")


@contextlib.contextmanager
def drop_start_up_lines(wanted: bool = True) -> Iterator[None]:
    """Keep back what C++ code logs on stderr in this block, where no Python setting reaches it. All else is printed
    after the block; so are warnings and errors where the block fails, and on a machine with an NVIDIA GPU, where they
    may say why it is not used."""
    if not wanted or sys.stderr is None:  # None where it was closed from the start
        yield
        return
    sys.stderr.flush()
    before = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
            file.seek(0)
            for line in file.read().decode(errors="replace").splitlines():
                logged = LOG_LINE.match(line)
                if not logged or (logged[1] in tuple("WEF") and (failed or has_nvidia_gpu())):
                    print(line, file=sys.stderr, flush=True)
