"""What is said on a terminal: lines on stderr, tables that are also Markdown, and how shares are written in them."""

import sys
import textwrap
from dataclasses import dataclass

WIDTH = 100  # columns of a terminal that tables and sentences fit into


@dataclass(frozen=True)
class Table:
    header: list[str]
    rows: list[list[str]]

    def to_text(self, columns: float = WIDTH) -> str:
        """Aligned for a terminal: words to the left, numbers to the right, long cells wrapped to fit into `columns`."""
        lines = [self.header, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.header))]
        if sum(widths) + 2 * len(widths[1:]) > columns:
            fair = max((columns - widths[0]) // len(widths[1:]) - 2, 12)  # a number is never broken
            widths[1:] = [min(fair, width) for width in widths[1:]]
        written = []
        for line in lines:
            cells = [textwrap.wrap(cell, width) or [""] for cell, width in zip(line, widths, strict=True)]
            for part in range(max(map(len, cells))):
                words = [cell[part] if part < len(cell) else "" for cell in cells]
                written.append("  ".join(word.rjust(width) if column else word.ljust(width) for column, (word, width)
                                         in enumerate(zip(words, widths, strict=True))).rstrip())
        return "\n".join([written[0], "-" * (sum(widths) + 2 * len(widths) - 2), *written[1:]])

    def to_markdown(self) -> str:
        head = ["---", *["---:"] * (len(self.header) - 1)]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"
                         for line in [self.header, head, *self.rows])


def format_percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def format_points(value: float) -> str:
    """A difference of two shares in percentage points."""
    return f"{100 * value:+.2f} points".replace("-", "−")


def say(*words: object, leader: bool = True) -> None:
    """Tell the user on stderr; where several processes share a run, the leader alone speaks."""
    if leader:
        print(*words, file=sys.stderr, flush=True)
