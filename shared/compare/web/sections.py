"""The sections of a page, each as pieces of HTML."""

import dataclasses
from collections.abc import Iterator, Sequence
from html import escape

import numpy as np

from shared.artifacts.table import Row, describe_checks, find_artifacts, list_outdated, tabulate
from shared.compare.classes import tabulate_scores
from shared.compare.facts import describe_machines, list_facts, tabulate_values
from shared.compare.noise import report_seeds
from shared.compare.web.commands import list_commands
from shared.compare.web.disagreements import collect_disagreements
from shared.compare.web.sides import Side
from shared.compare.web.tables import format_classes, format_confusion, format_table
from shared.errors import UserError
from shared.machine.console import Table
from shared.runs.records import SavedRun, label_runs
from shared.scores.calibration import BINS
from shared.scores.gallery.page import format_card
from shared.scores.summary import Summary


def write_sentence(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def write_blocks(blocks: Sequence[Table | str]) -> Iterator[str]:
    for block in blocks:
        yield format_table(block) if isinstance(block, Table) else write_sentence(block)


def write_curves(data: dict) -> Iterator[str]:
    axes = "".join(f'<label><input type="radio" name="axis" value="{number}"{" checked" if not number else ""}> '
                   f"{escape(text)}</label>" for number, text in enumerate(data["axes"]))
    yield f'<div class="controls"><fieldset><legend>over</legend>{axes}</fieldset>'
    yield ('<fieldset><legend>show</legend>'
           '<label><input type="checkbox" id="train" checked> training, dashed</label>'
           '<label><input type="checkbox" id="val" checked> validation</label>'
           '<label><input type="checkbox" id="log" checked> losses on a logarithmic scale</label>'
           + ('<label><input type="checkbox" id="bands" checked> seeds as bands: mean, lowest, highest</label>'
              if data["bands"] else "") + "</fieldset>")
    buttons = "".join(f'<button id="{name}">{text}</button>' for name, text in (
        ("closer", "closer"), ("wider", "wider"), ("left", "← left"), ("right", "right →"), ("all", "all")))
    yield (f"<fieldset><legend>zoom</legend>{buttons} or drag over a chart; a double click shows all</fieldset></div>")
    yield '<div class="legend" role="group" aria-label="runs that are drawn"></div>'
    yield '<div class="charts" data-of="curves"></div><noscript><p>The curves need JavaScript.</p></noscript>'
    if data["thinned"]:
        yield write_sentence(f"Curves of more than {data['thinned']:,} points are thinned: of each stretch they keep "
                             "the smallest and the largest value. metrics.jsonl has every row.")
    if not data["charts"]:
        yield write_sentence("No run has logged anything yet.")


def write_scores(runs: list[SavedRun], names: list[str], scores: list[Summary | None], reasons: list[str],
                 seeds: bool) -> Iterator[str]:
    yield format_table(tabulate_values(runs, [fact for fact in list_facts(runs) if not fact.name.startswith("perf/")]))
    found = [(name, one) for name, one in zip(names, scores, strict=True) if one]
    if found:
        yield format_table(tabulate_scores(*zip(*found, strict=True)))
        yield write_sentence("The interval is how far another draw of as many test images may lead (Wilson). It says "
                             "nothing of another seed.")
    yield from map(write_sentence, reasons)
    if seeds:
        yield from write_blocks(report_seeds(runs))


def write_classes(sides: list[Side], scores: list[Summary | None], apart: str) -> Iterator[str]:
    if not sides:
        yield write_sentence("No run has predictions yet.")
        return
    yield write_sentence("Recall is the share of a class's test images that are answered rightly"
                         + (", a mean over the runs" if any(len(side.places) > 1 for side in sides) else "") + ".")
    yield format_classes(sides, scores)
    if apart:
        yield write_sentence(apart)


def write_confusions(sides: list[Side], names: list[str], scores: list[Summary | None]) -> Iterator[str]:
    """The sum over each side's runs, seen at once where there are several, and every run."""
    summed = [side for side in sides if len(side.places) > 1]
    if not any(scores):
        yield write_sentence("No run has predictions yet.")
        return
    yield write_sentence("A row holds the test images of a class, a column what they were taken for.")
    yield '<div class="matrices">'
    for side in summed:
        own = [scores[place] for place in side.places]
        total = dataclasses.replace(own[0], confusion=np.sum([one.confusion for one in own], axis=0),
                                    images=sum(one.images for one in own))
        yield f"<details open><summary>{escape(side.title)}, added up</summary>{format_confusion(total)}</details>"
    for name, one in zip(names, scores, strict=True):
        if one:
            yield (f"<details{'' if summed else ' open'}><summary>{escape(name)}</summary>{format_confusion(one)}"
                   "</details>")
    yield "</div>"


def write_calibration(scores: list[Summary | None]) -> Iterator[str]:
    if not any(scores):
        yield write_sentence("No run has predictions yet.")
        return
    yield write_sentence(f"Test images in {BINS} bins of equal width by the probability of the answer. On the dotted "
                         "line a model is right as often as it says; below it is too sure. Bins of few images say "
                         "little.")
    yield ('<div class="controls"><fieldset><legend>probabilities</legend>'
           '<label><input type="radio" name="bins" value="as trained" checked> as trained</label>'
           '<label><input type="radio" name="bins" value="at the temperature"> at the temperature fitted on validation '
           'images</label></fieldset></div><div class="charts" data-of="calibration"></div>')


def write_disagreements(sides: list[Side], runs: list[SavedRun], scores: list[Summary | None],
                        apart: str) -> Iterator[str]:
    if len(sides) < 2:
        yield write_sentence("This takes two runs, or runs of both siblings, with predictions for the same images and "
                             "classes." + (f" {apart}" if apart else ""))
        return
    section, note = collect_disagreements(sides, runs, scores[sides[0].places[0]].classes)
    order = "Those come first of whose answers both are sure."
    if any(len(side.places) > 1 for side in sides):
        order = "Those come first on which the runs of each side agree with each other and not with the other side's."
    yield write_sentence(f"{section.describe_count()} {order}" if section.cards else
                         "There are none: all runs give the same answer to each test image.")
    if note:
        yield write_sentence(note)
    yield f'<div class="cards">{"".join(map(format_card, section.cards))}</div>'


def write_speed(runs: list[SavedRun]) -> Iterator[str]:
    yield format_table(tabulate_values(runs, [fact for fact in list_facts(runs) if fact.name.startswith("perf/")]))
    yield from map(write_sentence, describe_machines(runs))
    yield '<div class="charts" data-of="speed"></div>'


def write_exports(runs: list[SavedRun]) -> Iterator[str]:
    """Nothing where no run was exported."""
    for run in runs:
        if not (run.folder / "exports").is_dir():
            continue
        try:
            rows = [Row(artifact, "not measured") for artifact in find_artifacts([run.folder])]
            yield write_sentence(f"{run.group}/{run.name}. {describe_checks(rows)}")
            yield format_table(tabulate(rows, timed=False))
            yield from (write_sentence(f"{artifact.name} was made of other weights than the run has now; export it "
                                       "again.") for artifact in list_outdated([row.artifact for row in rows]))
        except UserError as error:
            yield write_sentence(f"{error}.")


def write_commands(runs: list[SavedRun]) -> Iterator[str]:
    yield '<ul class="runs">'
    for name, run in zip(label_runs(runs), runs, strict=True):
        yield f"<li>{escape(name)}: {escape(f'{run.group}/{run.name}')}, started {escape(run.started[:19])}</li>"
    yield "</ul>"
    found = list_commands(runs)
    for number, (said, script) in enumerate(found):
        yield f"<details{' open' if number < 2 else ''}><summary>config {number + 1} of {len(found)}</summary>" \
            if len(found) > 1 else "<div>"
        yield from map(write_sentence, said)
        yield f"<pre>{escape(script)}</pre>"
        yield "</details>" if len(found) > 1 else "</div>"
