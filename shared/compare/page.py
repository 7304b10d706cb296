"""A comparison as Markdown and as text for a terminal."""

import os
import textwrap
from dataclasses import dataclass
from pathlib import Path

from shared.machine.console import WIDTH, Table
from shared.runs.records import SavedRun


@dataclass(frozen=True)
class Comparison:
    """`differences` is empty for the same experiment. `blocks` is what was found, as tables and sentences; `picture`
    and `page` are the files that were written."""
    runs: list[SavedRun]
    differences: list[str]
    verdict: str
    blocks: list[Table | str]
    picture: Path
    page: Path


def format_heading(runs: list[SavedRun]) -> str:
    """Group, data set and model, each once."""
    parts = ([run.group for run in runs], [run.config.get("dataset.name") for run in runs],
             [run.config.get("model.name") for run in runs])
    return " · ".join(" / ".join(dict.fromkeys(str(value or "?") for value in values)) for values in parts)


def format_markdown(title: str, runs: list[SavedRun], differences: list[str], verdict: str, blocks: list[Table | str]) -> str:
    said = [f"# {title}", f"**{'NOT the same experiment.' if differences else f'{verdict[0].upper()}{verdict[1:]}.'}**"]
    if differences:
        said.append("\n".join(["What differs:", "", *(f"- `{line}`" for line in differences)]))
    said.append("![loss and accuracy over samples and over wall clock](comparison.png)")
    said += [block.to_markdown() if isinstance(block, Table) else block for block in blocks]
    said.append("\n".join(["Runs:", "", *(f"- `{run.group}/{run.name}`" for run in runs)]))
    return "\n\n".join(said) + "\n"


def format_text(comparison: Comparison) -> str:
    """The comparison for a terminal."""
    def wrapped(sentence: str) -> str:
        return textwrap.fill(sentence, WIDTH, break_long_words=False, break_on_hyphens=False)

    said = [format_heading(comparison.runs)]
    if comparison.differences:
        said.append("NOT the same experiment. What differs:")
        said += [textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="    ", break_long_words=False,
                               break_on_hyphens=False) for line in comparison.differences]
    else:
        said.append(comparison.verdict)
    for block in comparison.blocks:
        said.append(f"\n{block.to_text()}\n" if isinstance(block, Table) else wrapped(block))
    return "\n".join(said).rstrip() + f"\n\npicture: {shorten_path(comparison.picture)}\npage:    {shorten_path(comparison.page)}"


def shorten_path(path: Path) -> str:
    """A path as short as it can be typed where the command runs."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
