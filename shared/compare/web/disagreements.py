"""The test images to which two sides give different answers, with both answers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from shared.compare.web.sides import Side
from shared.config import read_kept_config
from shared.data.definitions import find_definition
from shared.data.download import are_files_here
from shared.errors import UserError
from shared.runs.records import SavedRun
from shared.scores.gallery.answers import Answers, read_answers
from shared.scores.gallery.cards import Answer, Card, Section
from shared.scores.gallery.pictures import draw_image

MOST_IMAGES = 24
MOST_ANSWERS = 3  # of a side to an image


@dataclass(frozen=True, eq=False)
class Given:
    """What a run answered to n test images: `answer` (n,) int64, its probability `sureness` (n,) float64, and that of
    the label, `own` (n,) float64."""

    answer: np.ndarray
    sureness: np.ndarray
    own: np.ndarray


def read_given(run: SavedRun) -> Given:
    _, label, logits = run.predictions
    p = softmax(logits.astype(np.float64), axis=1)
    return Given(p.argmax(axis=1), p.max(axis=1), p[np.arange(len(label)), label])


def measure_distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How far apart two sides' answers to n images are, (n,) in 0..1: half the sum over the classes of the absolute
    difference between the shares of runs that give the class. It is 0 or 1 where each side is a single run.

    `first` and `second` are the runs' answers, (runs, n).
    """
    common = np.zeros(first.shape[1])
    for answer in first:  # by runs and not by classes, since the classes may be a thousand and the images 50,000
        share = (first == answer).mean(axis=0)
        common += np.minimum(share, (second == answer).mean(axis=0)) / share / len(first)
    return np.round(1 - common, 12)


def collect_disagreements(sides: Sequence[Side], runs: Sequence[SavedRun],
                          classes: Sequence[str]) -> tuple[Section, str]:
    """The images on which two sides are furthest apart, and a sentence on why they are not seen; empty where they are.

    The runs of the sides are finished and were tested on the same images with the same `classes`.
    """
    given = [[read_given(runs[place]) for place in side.places] for side in sides]
    distance = measure_distance(*(np.stack([one.answer for one in own]) for own in given))
    sureness = np.min([np.mean([one.sureness for one in own], axis=0) for own in given], axis=0)
    rows = np.flatnonzero(distance)
    rows = rows[np.lexsort((-sureness[rows], -distance[rows]))]
    first = runs[sides[0].places[0]]
    images, note = find_images(first) if len(rows) else (None, "")
    cards = []
    for row in rows[:MOST_IMAGES].tolist():
        label = int(first.predictions.label[row])
        name = images.name_image(row) if images else f"test image {first.predictions.index[row]}"
        pictures = [("image", draw_image(images.read_image(row)))] if images else []
        cards.append(Card(name, classes[label], [
            answer for side, own in zip(sides, given, strict=True) for answer in count_answers(
                side, own, row, label, classes)], pictures))
    return Section("", cards, len(rows)), note


def count_answers(side: Side, given: list[Given], row: int, label: int, classes: Sequence[str]) -> list[Answer]:
    """What the runs of a side answered to the image in `row`, the most frequent answers first, and no more than
    MOST_ANSWERS of them; a probability is the mean over the runs that gave the answer."""
    found: dict[int, list[Given]] = {}
    for one in given:
        found.setdefault(int(one.answer[row]), []).append(one)
    return [Answer(side.name if len(given) == 1 else f"{side.name} {len(own)}/{len(given)}", classes[answer],
                   float(np.mean([one.sureness[row] for one in own])), answer == label,
                   float(np.mean([one.own[row] for one in own])))
            for answer, own in sorted(found.items(), key=lambda both: -len(both[1]))[:MOST_ANSWERS]]


def find_images(run: SavedRun) -> tuple[Answers | None, str]:
    """The images that a run was tested on, or why they cannot be shown. Nothing is downloaded for them."""
    kept = run.folder / "config.yaml"
    try:
        dataset = read_kept_config(kept.read_text(encoding="utf-8"), kept).dataset
        if not are_files_here(find_definition(dataset.name, dataset.variant), dataset.root):
            return None, f"The images are not shown, since the data set {dataset.name} is not on this machine."
        return read_answers(run.folder), ""
    except UserError as error:
        return None, f"The images are not shown: {error}."
