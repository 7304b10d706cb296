"""The beginning of a gallery as a single picture, for whoever cannot open a page."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shared.scores.gallery.cards import Card, Section

COLUMNS = 6  # cards of each section
DPI = 100
WIDTH, LINE = 2.4, 0.15  # inches: a card, and a line of text below its pictures
LONGEST = 38  # characters of a line below the pictures
GAP = 4  # pixels between the pictures of a card


def draw_sheet(title: str, sections: list[Section], path: Path) -> None:
    """Write a PNG with a row for each section that has cards."""
    shown = [section for section in sections if section.cards]
    columns = max((min(COLUMNS, len(section.cards)) for section in shown), default=1)
    # The more pictures a card has beside each other, the lower they are.
    below = [0.1 + LINE * (1 + len(section.cards[0].answers)) for section in shown]
    heights = [WIDTH / max(len(card.pictures) for card in section.cards) + text + 0.35
               for section, text in zip(shown, below, strict=True)]
    width, height = max(WIDTH * columns, 6) + 0.2, sum(heights) + 0.45
    figure = Figure(figsize=(width, height), dpi=DPI)
    figure.text(0.1 / width, 1 - 0.1 / height, title, fontsize=12, weight="bold", va="top", parse_math=False)
    top = height - 0.45
    for section, own, text in zip(shown, heights, below, strict=True):
        figure.text(0.1 / width, (top - 0.05) / height, f"{section.title} ({section.total})", fontsize=10, va="top",
                    parse_math=False)
        for column, card in enumerate(section.cards[:COLUMNS]):
            box = 0.1 + column * WIDTH, top - own + text, WIDTH - 0.12, own - text - 0.3  # left, bottom, size; inches
            axes = figure.add_axes((box[0] / width, box[1] / height, box[2] / width, box[3] / height))
            draw_card(axes, card)
        top -= own
    figure.savefig(path, format="png")


def draw_card(axes: Axes, card: Card) -> None:
    pictures = [np.asarray(picture) for _, picture in card.pictures]
    gap = np.full((len(pictures[0]), GAP, 3), 255, np.uint8)
    axes.imshow(np.concatenate([part for picture in pictures for part in (gap, picture)][1:], axis=1), aspect="equal",
                interpolation="antialiased")
    axes.set_anchor("NW")
    axes.axis("off")
    axes.text(0, -0.03, "\n".join(list_lines(card)), transform=axes.transAxes, fontsize=8, va="top",
              parse_math=False)


def list_lines(card: Card) -> list[str]:
    """What stands below the pictures. Where it is too long, a class's name is cut and not the probability behind it."""
    parts = [("true: ", card.truth, ""), *((f"{answer.run}: ", answer.answer, f" ({100 * answer.share:.0f} %)")
                                           for answer in card.answers)]
    rooms = [max(LONGEST - len(before + behind), 2) for before, _, behind in parts]
    return [before + (name if len(name) <= room else f"{name[:room - 1]}…") + behind
            for (before, name, behind), room in zip(parts, rooms, strict=True)]
