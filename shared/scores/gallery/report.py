"""Making a gallery: reading the runs, choosing images, having their maps computed, writing page and picture."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared.errors import UserError
from shared.machine.console import format_percent, say
from shared.machine.files import write_whole
from shared.runs.records import FRAMEWORKS, label_runs
from shared.scores.gallery.answers import Answers, read_answers
from shared.scores.gallery.cards import Maps, Section, make_cards
from shared.scores.gallery.maps import explain_answers
from shared.scores.gallery.page import format_page
from shared.scores.gallery.selection import (
    explain_incomparable,
    find_confident_mistakes,
    find_disagreements,
    find_unsure_hits,
)

KINDS: dict[str, Callable[[Answers], np.ndarray]] = {
    "the most confident mistakes": find_confident_mistakes,
    "the least sure hits": find_unsure_hits,
}


@dataclass(frozen=True)
class Gallery:
    """The files that were written, how many images they show, and sentences on what is missing in them."""

    page: Path
    sheet: Path
    images: int
    notes: list[str]


def write_gallery(folders: list[Path], count: int, out: Path | None = None) -> Gallery:
    """Write the gallery of one run or of two, with `count` images in each section at most.

    It goes to the page `out`, else gallery.html in the run's folder or in that of two runs' group, and a PNG beside it.

    Raises:
        UserError: where a run cannot be shown, or nothing can be written there.
    """
    everything: list[Answers] = []
    for folder in folders:
        everything.append(read_answers(folder, everything))
    everything.sort(key=lambda answers: FRAMEWORKS.index(answers.run.framework))
    names, notes = label_runs([answers.run for answers in everything]), []
    apart = None  # the rows on which two runs disagree
    if len(everything) == 2:
        reason = explain_incomparable(*everything)
        if reason:
            notes.append(f"Where the two runs disagree is not shown, since {reason}.")
        else:
            apart = find_disagreements(*everything)

    runs, sections = [], []
    for name, answers in zip(names, everything, strict=True):
        kinds = {kind: find(answers) for kind, find in KINDS.items()}
        shown = [rows[:count] for rows in kinds.values()] + ([] if apart is None else [apart[:count]])
        maps, note = collect_maps(name, answers, np.unique(np.concatenate(shown)))
        notes += [note] if note else []
        runs.append((name, answers, maps))
        sections += [Section(f"{name}: {kind}", make_cards(rows[:count].tolist(), runs[-1:]), len(rows))
                     for kind, rows in kinds.items()]
    if apart is not None:
        sections.insert(0, Section("The runs disagree, most surely first", make_cards(apart[:count].tolist(), runs),
                                   len(apart)))

    first = everything[0]
    title = f"{first.config.dataset.name} · {' / '.join(dict.fromkeys(one.config.model.name for one in everything))}"
    facts = [f"{name}: {len(one.truth):,} test images, {format_percent(np.mean(one.given == one.truth))} right; "
             f"{one.run.group}/{one.run.name}" for name, one, _ in runs]
    folder = first.run.folder.resolve()
    page = out or (folder if len(everything) == 1 else folder.parent) / "gallery.html"
    sheet = page.with_suffix(".png")
    write_files(page, format_page(title, facts, notes, sections), sheet, title, sections)
    return Gallery(page, sheet, sum(len(section.cards) for section in sections), notes)


def collect_maps(name: str, answers: Answers, rows: np.ndarray) -> tuple[Maps, str]:
    """The maps of the answers in `rows` of the run called `name`, or none and a sentence that says why."""
    say(f"computing {len(rows)} maps of {name}")
    try:
        return dict(zip(rows.tolist(), explain_answers(answers, rows), strict=True)), ""
    except UserError as error:
        return {}, f"No maps of {name} ({answers.config.model.name}): {error}"


def write_files(page: Path, text: str, sheet: Path, title: str, sections: list[Section]) -> None:
    from shared.scores.gallery.sheet import draw_sheet  # here, since drawing takes a second to import

    advice = "name another place with --out"
    write_whole(page, lambda file: file.write_text(text, encoding="utf-8"), advice=advice)
    write_whole(sheet, lambda file: draw_sheet(title, sections, file), advice=advice)
