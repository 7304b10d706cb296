"""What a gallery shows: sections of cards, each with an image, its maps and what was answered."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from shared.scores.gallery.answers import Answers
from shared.scores.gallery.pictures import draw_image, draw_map

Maps = Mapping[int, np.ndarray]  # the map (h, w) of each row that has one


@dataclass(frozen=True)
class Answer:
    """What a run answered to an image. `true_share` is the probability that it gives to the true class."""

    run: str
    answer: str
    share: float
    is_right: bool
    true_share: float


@dataclass(frozen=True)
class Card:
    """An image of a gallery. `pictures` are the image and its maps, each with a title."""

    name: str
    truth: str
    answers: list[Answer]
    pictures: list[tuple[str, Image.Image]]


@dataclass(frozen=True)
class Section:
    """Cards of a kind, `total` of which there are."""

    title: str
    cards: list[Card]
    total: int

    def describe_count(self) -> str:
        if not self.total:
            return "There are none."
        if len(self.cards) == self.total:
            return f"All {self.total}."
        return f"The first {len(self.cards)} of {self.total}."


def make_cards(rows: Iterable[int], runs: list[tuple[str, Answers, Maps]]) -> list[Card]:
    """A card for each of the `rows`, with what each of the runs, of these names, answered and looked at."""
    cards = []
    first = runs[0][1]
    for row in rows:
        image = draw_image(first.read_image(row))
        maps = [(name, draw_map(image, found[row])) for name, _, found in runs if row in found]
        said = [Answer(name, answers.data.classes[answers.given[row]], answers.sureness[row],
                       bool(answers.given[row] == answers.truth[row]),
                       answers.probabilities[row, answers.truth[row]]) for name, answers, _ in runs]
        cards.append(Card(first.name_image(row), first.data.classes[first.truth[row]], said, [("image", image), *maps]))
    return cards
