"""Tables of a page: of text, of the classes, and of what is taken for what."""

from collections.abc import Sequence
from html import escape

import numpy as np

from shared.compare.web.sides import Side
from shared.machine.console import Table, format_percent, format_points
from shared.scores.pictures import choose_classes, describe_confusion
from shared.scores.summary import Summary

FEW = 20  # classes that are seen before the rest is asked for


def format_table(table: Table, bars: Sequence[float] = ()) -> str:
    """`bars` are shares from -1 to 1, one for each row, that are drawn in the last column behind the text."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.header)
    rows = []
    for number, (first, *cells) in enumerate(table.rows):
        written = [f"<td{mark_long(cell)}>{escape(cell)}</td>" for cell in cells]
        if bars:
            written[-1] = (f'<td class="bar {"more" if bars[number] > 0 else "less"}" '
                           f'style="--share: {abs(bars[number]):.3f}">{escape(cells[-1])}</td>')
        rows.append(f'<tr><th scope="row">{escape(first)}</th>{"".join(written)}</tr>')
    return (f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>' + "\n".join(rows)
            + "</tbody></table></div>")


def mark_long(cell: str) -> str:
    return ' class="long"' if len(cell) > 26 else ""


def format_classes(sides: Sequence[Side], scores: Sequence[Summary | None]) -> str:
    """A table of each side's recall in each class, with F1; of two sides the classes with the largest difference first.

    `scores` are those of all runs, by the places that the sides have; they have the same classes.
    """
    own = [[scores[place] for place in side.places] for side in sides]
    recall, f1 = ([np.array([[getattr(one, name) for one in summary.per_class] for summary in part], np.float64)
                   .mean(axis=0) for part in own] for name in ("recall", "f1"))  # of each side (K,), NaN without images
    header = ["class", "images", *(f"recall, {side.name}" for side in sides), *(f"F1, {side.name}" for side in sides)]
    change = recall[1] - recall[0] if len(sides) == 2 else np.zeros(len(recall[0]))
    order = np.argsort(-np.nan_to_num(np.abs(change)), kind="stable")
    rows = [[own[0][0].classes[k], f"{own[0][0].per_class[k].support:,}",
             *("-" if np.isnan(side[k]) else format_percent(side[k]) for side in (*recall, *f1)),
             *(["-" if np.isnan(change[k]) else format_points(change[k])] if len(sides) == 2 else [])] for k in order]
    if len(sides) == 2:
        header.append(f"recall, {sides[1].name} − {sides[0].name}")
    largest = float(np.nanmax(np.abs(change), initial=0.0)) or 1.0
    bars = [float(np.nan_to_num(change[k])) / largest for k in order] if len(sides) == 2 else []
    written = format_table(Table(header, rows[:FEW]), bars[:FEW])
    if len(rows) > FEW:
        written += (f"<details><summary>the other {len(rows) - FEW:,} classes</summary>"
                    f"{format_table(Table(header, rows[FEW:]), bars[FEW:])}</details>")
    return written


def format_confusion(scores: Summary) -> str:
    """A matrix whose rows are labels and whose columns are answers, shaded by their share of the row."""
    shown = choose_classes(scores.confusion)
    counts, totals = scores.confusion[np.ix_(shown, shown)], scores.confusion.sum(axis=1)[shown]
    names = [escape(name) for name in np.take(scores.classes, shown).tolist()]
    head = "".join(f'<th scope="col"><span>{name}</span></th>' for name in names)
    rows = []
    for row, (name, own, total) in enumerate(zip(names, counts.tolist(), totals.tolist(), strict=True)):
        cells = "".join(format_cell(count, total, row == column) for column, count in enumerate(own))
        rows.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    title, below = describe_confusion(scores, shown)
    slanted = " slanted" if max(map(len, names)) > 3 else ""
    return (f'<div class="wide"><table class="confusion{slanted}" aria-label="{escape(title)}"><thead><tr><td></td>'
            f'{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div><p>'
            + (f"{escape(title)}; " if len(shown) < len(scores.classes) else "") + f"{escape(below)}.</p>")


def format_cell(count: int, total: int, is_right: bool) -> str:
    if not count:
        return "<td></td>"
    # The square root tells one wrong answer in a hundred from none.
    share = count / total if is_right else (count / total) ** 0.5
    return f'<td class={"right" if is_right else "wrong"} style="--share: {share:.2f}">{count:,}</td>'
