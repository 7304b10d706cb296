"""What the commands print: lines on stderr, tables for a terminal or for Markdown, and numbers in them."""

import itertools
import sys
import textwrap
from dataclasses import dataclass

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
