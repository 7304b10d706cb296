"""The page of a comparison: the file that holds its sections with their data, style, script and library."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from shared.compare.classes import summarise_run
from shared.compare.facts import list_notes
from shared.compare.web import sections
from shared.compare.web.series import collect_curves
from shared.compare.web.sides import Side, form_groups, form_sides
from shared.errors import UserError
from shared.runs.records import SavedRun, label_runs
from shared.scores.gallery.page import STYLE
from shared.scores.summary import Summary

HERE = Path(__file__).parent
UPLOT = "uPlot 1.6.32, https://github.com/leeoniya/uPlot"


def format_page(title: str, verdict: str, runs: list[SavedRun], differences: list[str], said: Sequence[str],
                seeds: bool) -> str:
    """The page of `runs` with a `verdict`; `said` are sentences on runs that were left out. With `seeds`, the runs are
    of several seeds, and whether their difference is more than noise is told too."""
    names, scores, reasons = label_runs(runs), [], []
    for name, run in zip(names, runs, strict=True):
        try:
            scores.append(summarise_run(run))
        except UserError as error:
            scores.append(None)
            reasons.append(f"{name} has no scores here: {error}.")
    data = collect_curves(runs, names, form_groups(runs), scores)
    sides, apart = choose_comparable(runs, names, scores)
    written = {name: (heading, "\n".join(parts)) for name, heading, parts in (
        ("curves", "Curves", sections.write_curves(data)),
        ("scores", "Scores", sections.write_scores(runs, names, scores, reasons, seeds)),
        ("classes", "Classes", sections.write_classes(sides, scores, apart)),
        ("confusion", "What is taken for what", sections.write_confusions(sides, names, scores)),
        ("calibration", "Calibration", sections.write_calibration(scores)),
        ("disagreements", "Where the answers differ", sections.write_disagreements(sides, runs, scores, apart)),
        ("speed", "Speed and memory", sections.write_speed(runs)),
        ("exports", "Exported models", sections.write_exports(runs)),
        ("commands", "Making it again", sections.write_commands(runs)),
    )}
    filled = {name: both for name, both in written.items() if both[1]}
    links = " ".join(f'<a href="#{name}">{escape(heading)}</a>' for name, (heading, _) in filled.items())
    body = [f"<h1>{escape(title)}</h1>", *write_verdict(verdict, differences, [*list_notes(runs), *said]),
            f"<nav>{links}</nav>"]
    body += [f'<section id="{name}"><h2>{escape(heading)}</h2>\n{inner}</section>'
             for name, (heading, inner) in filled.items()]
    return assemble(title, "\n".join(body), data)


def assemble(title: str, body: str, data: dict) -> str:
    """The whole file. What it may load is nothing: neither from the network nor from beside it."""
    style, script, library, library_style, licence = (
        (HERE / name).read_text(encoding="utf-8") for name in
        ("page.css", "page.js", "uplot/uPlot.iife.min.js", "uplot/uPlot.min.css", "uplot/LICENSE"))
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    written = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<!-- The script and the style that follow are of {UPLOT}
{licence.strip()}
-->
<style>{library_style}</style>
<style>{STYLE}{style}</style>
</head>
<body>
{body}
<footer>Curves are drawn by {UPLOT} (MIT licence), which this page holds. It needs no network.</footer>
<script type="application/json" id="data">{written}</script>
<script>{library}</script>
<script>{script}</script>
</body>
</html>
"""


def choose_comparable(runs: list[SavedRun], names: list[str],
                      scores: list[Summary | None]) -> tuple[list[Side], str]:
    """The sides, with only those runs that have the classes and the test images of the first run with scores, and a
    sentence on those that have others."""
    scored = [place for place, one in enumerate(scores) if one]
    same = [place for place in scored if scores[place].classes == scores[scored[0]].classes
            and runs[place].predictions.fingerprint() == runs[scored[0]].predictions.fingerprint()]
    other = [names[place] for place in scored if place not in same]
    apart = f"Left out, with other classes or other test images than {names[same[0]]}: {', '.join(other)}." if other \
        else ""
    sides = [dataclasses.replace(side, places=[place for place in side.places if place in same])
             for side in form_sides(runs)]
    return [side for side in sides if side.places], apart


def write_verdict(verdict: str, differences: list[str], notes: list[str]) -> Iterator[str]:
    if differences:
        yield '<div class="verdict differs"><b>Not the same experiment.</b> What differs:<ul>'
        yield "".join(f"<li>{escape(line)}</li>" for line in differences) + "</ul></div>"
    else:
        yield f'<div class="verdict"><b>{escape(verdict[:1].upper() + verdict[1:])}.</b></div>'
    yield from map(sections.write_sentence, notes)
