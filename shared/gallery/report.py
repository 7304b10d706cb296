"""Making a gallery: reading the runs, choosing images, having their maps computed, writing page and picture."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared.errors import UserError
from shared.gallery.answers import Answers, read_answers
from shared.gallery.cards import Maps, Section, make_cards
from shared.gallery.maps import explain_answers
from shared.gallery.page import format_page
from shared.gallery.selection import (
    explain_incomparable,
    find_confident_mistakes,
    find_disagreements,
    find_unsure_hits,
)
from shared.machine.console import format_percent, say
from shared.machine.files import write_whole
from shared.runs.records import FRAMEWORKS, label_runs

TOGETHER = "disagreements"
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
    names = label_runs([answers.run for answers in everything])
    rows = [{kind: find(answers) for kind, find in KINDS.items()} for answers in everything]
    notes = []
    if len(everything) == 2:
        reason = explain_incomparable(*everything)
        if reason:
            notes.append(f"Where the two runs disagree is not shown, since {reason}.")
        else:
            apart = find_disagreements(*everything)
            rows = [{TOGETHER: apart, **own} for own in rows]

    maps: list[Maps] = []
    for name, answers, own in zip(names, everything, rows, strict=True):
        shown = np.unique(np.concatenate([found[:count] for found in own.values()]))
        maps.append({})
        try:
            if len(shown):
                say(f"computing {len(shown)} maps of {name}")
                maps[-1] = dict(zip(shown.tolist(), explain_answers(answers, shown), strict=True))
        except UserError as error:
            notes.append(f"No maps of {name} ({answers.config.model.name}): {error}")

    runs = list(zip(names, everything, maps, strict=True))
    sections = []
    if TOGETHER in rows[0]:
        sections.append(Section("The runs disagree, most surely first", make_cards(apart[:count].tolist(), runs),
                                len(apart)))
    for run, own in zip(runs, rows, strict=True):
        sections += [Section(f"{run[0]}: {kind}", make_cards(own[kind][:count].tolist(), [run]), len(own[kind]))
                     for kind in KINDS]

    first = everything[0]
    title = f"{first.config.dataset.name} · {' / '.join(dict.fromkeys(one.config.model.name for one in everything))}"
    facts = [f"{name}: {len(one.truth):,} test images, {format_percent(np.mean(one.given == one.truth))} right; "
             f"{one.run.group}/{one.run.name}" for name, one, _ in runs]
    folder = first.run.folder.resolve()
    page = out or (folder if len(everything) == 1 else folder.parent) / "gallery.html"
    sheet = page.with_suffix(".png")
    write_files(page, format_page(title, facts, notes, sections), sheet, title, sections)
    return Gallery(page, sheet, sum(len(section.cards) for section in sections), notes)


def write_files(page: Path, text: str, sheet: Path, title: str, sections: list[Section]) -> None:
    from shared.gallery.sheet import draw_sheet  # here, since drawing takes a second to import

    try:
        write_whole(page, lambda file: file.write_text(text, encoding="utf-8"))
        write_whole(sheet, lambda file: draw_sheet(title, sections, file))
    except UserError as error:
        reason = getattr(error.__context__, "strerror", None) or error.__context__
        raise UserError(f"{page} and {sheet.name} cannot be written ({reason}); name another place with --out") \
            from None
