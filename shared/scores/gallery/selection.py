"""Which of the test images are worth a look."""

import numpy as np

from shared.scores.gallery.answers import Answers


def find_confident_mistakes(answers: Answers) -> np.ndarray:
    """The rows of all wrong answers, (k,) int64, from the most to the least probable answer."""
    wrong = np.flatnonzero(answers.given != answers.truth)
    return wrong[np.argsort(-answers.sureness[wrong], kind="stable")]


def find_unsure_hits(answers: Answers) -> np.ndarray:
    """The rows of all right answers, (k,) int64, from the least to the most probable answer."""
    right = np.flatnonzero(answers.given == answers.truth)
    return right[np.argsort(answers.sureness[right], kind="stable")]


def find_disagreements(first: Answers, second: Answers) -> np.ndarray:
    """The rows of all images to which two runs give different answers, (k,) int64.

    Those come first of which both are sure, by the lower of the two answers' probabilities.
    """
    rows = np.flatnonzero(first.given != second.given)
    lower = np.minimum(first.sureness[rows], second.sureness[rows])
    return rows[np.argsort(-lower, kind="stable")]


def explain_incomparable(first: Answers, second: Answers) -> str:
    """Why two runs' answers cannot be laid side by side; empty where they can."""
    if first.data.classes != second.data.classes:
        return "they have different classes"
    if first.data.fingerprints()["test"] != second.data.fingerprints()["test"]:
        return "they have different test images"
    if not np.array_equal(first.index, second.index):
        return "one of them was tested on a part of the images alone"
    return ""
