"""Test images whose label may be wrong: those whose label the model finds least likely."""

from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from shared.data.duplicates import digest_files, digest_pixels, find_copies
from shared.data.images import Images, list_file_sizes
from shared.runs.records import Predictions
from shared.scores.summary import require_finite


class Suspect(NamedTuple):
    """An image, number `index` of the test images; `label` and `answer` are classes by number, each with the
    probability that the model gives it."""

    index: int
    label: int
    label_probability: float
    answer: int
    answer_probability: float


def find_suspects(predictions: Predictions, count: int) -> list[Suspect]:
    """The `count` images whose label has the lowest probability, the lowest first.

    With planted errors this found more of them than confident learning does (https://arxiv.org/abs/1911.00068).

    Raises:
        UserError: where a logit is not finite.
    """
    require_finite(predictions, "test")
    p = softmax(predictions.logits.astype(np.float64), axis=1)
    own, answer = p[np.arange(len(p)), predictions.label], predictions.logits.argmax(axis=1)
    return [Suspect(int(predictions.index[row]), int(predictions.label[row]), float(own[row]), int(answer[row]),
                    float(p[row, answer[row]])) for row in np.argsort(own, kind="stable")[:count]]


def find_conflicts(images: Images) -> list[tuple[int, int]]:
    """Pairs of the same image under two labels, as numbers of the `images`: the second and the first of each."""
    keys = digest_pixels(images.pixels) if images.files is None else \
        digest_files(images.files.tolist(), list_file_sizes(images))
    return [(copy.row, copy.other_row) for copy in find_copies({"test": keys})
            if images.labels[copy.row] != images.labels[copy.other_row]]
