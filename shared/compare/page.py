"""A comparison as Markdown and as text for a terminal."""

import os
import textwrap
from dataclasses import dataclass
from pathlib import Path

from shared.machine.console import WIDTH, Table
from shared.runs.records import SavedRun


@dataclass(frozen=True)
class Comparison:
    """What was found about `runs`.

    `differences` is empty where they are the same experiment; `blocks` are tables and sentences, `left_out` those of
    them that say which runs were passed over; `picture`, `page` and `html`, where they were asked for, are the files
    that were written; `unwritten` says why where they could not be.
    """
    runs: list[SavedRun]
    differences: list[str]
    verdict: str
    blocks: list[Table | str]
    left_out: list[str]
    picture: Path | None = None
    page: Path | None = None
    html: Path | None = None
    unwritten: str = ""


def format_heading(runs: list[SavedRun]) -> str:
    """The runs' groups, data sets and models, each named once."""
    parts = ([run.group for run in runs], [run.config.get("dataset.name") for run in runs],
             [run.config.get("model.name") for run in runs])
    return " · ".join(" / ".join(dict.fromkeys(str(value or "?") for value in values)) for values in parts)


def format_markdown(found: Comparison) -> str:
    """The page of a comparison, comparison.md."""
    said = [f"# {format_heading(found.runs)}", *list_verdict(found),
            "![loss and accuracy over samples and over wall clock](comparison.png)", *list_blocks(found),
            "\n".join(["Runs:", "", *(f"- `{run.group}/{run.name}`" for run in found.runs)])]
    return "\n\n".join(said) + "\n"


def list_verdict(found: Comparison) -> list[str]:
    """Paragraphs in Markdown: whether the runs are the same experiment, and what differs where they are not."""
    if not found.differences:
        return [f"**{found.verdict[0].upper()}{found.verdict[1:]}.**"]
    return ["**NOT the same experiment.**",
            "\n".join(["What differs:", "", *(f"- `{line}`" for line in found.differences)])]


def list_blocks(found: Comparison) -> list[str]:
    """The tables and sentences of a comparison, each as Markdown."""
    return [block.to_markdown() if isinstance(block, Table) else block for block in found.blocks]


def format_text(comparison: Comparison) -> str:
    """The comparison for a terminal."""
    said = [format_heading(comparison.runs)]
    if comparison.differences:
        said.append("NOT the same experiment. What differs:")
        said += [wrap(line, "  ", "    ") for line in comparison.differences]
    else:
        said.append(comparison.verdict)
    for block in comparison.blocks:
        said.append(f"\n{block.to_text()}\n" if isinstance(block, Table) else wrap(block))
    files = [] if comparison.unwritten else ["", f"picture: {shorten_path(comparison.picture)}",
                                             f"page:    {shorten_path(comparison.page)}"]
    if files and comparison.html:
        files.append(f"html:    {shorten_path(comparison.html)} ({comparison.html.stat().st_size / 1000:,.0f} kB)")
    return "\n".join(["\n".join(said).rstrip(), *files])


def wrap(sentence: str, first_indent: str = "", indent: str = "") -> str:
    """`sentence` in lines of at most WIDTH characters, none of whose words is broken."""
    return textwrap.fill(sentence, WIDTH, initial_indent=first_indent, subsequent_indent=indent,
                         break_long_words=False, break_on_hyphens=False)


def shorten_path(path: Path) -> str:
    """`path` relative to the current folder where it lies in it, else as it is."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
