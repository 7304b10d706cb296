"""Sets of classes, one set for each image, that hold the right class as often as was asked for.

They are split conformal sets by the probability of a class, the least ambiguous ones that Sadinle, Lei and Wasserman
describe: https://arxiv.org/abs/1609.00451. Angelopoulos and Bates explain them: https://arxiv.org/abs/2107.07511
"""

import numpy as np

PERCENT = 90  # of the images whose set is to hold the right class


def fit_threshold(probabilities: np.ndarray, labels: np.ndarray, percent: int = PERCENT) -> float:
    """The smallest probability with which a class belongs to an image's set, from n validation images.

    `probabilities` (n, K) float64, `labels` (n,) int. It is the ceil((n + 1) * percent / 100)-th largest probability of
    a right class; 0, so that a set holds every class, where n is smaller than that number.
    """
    rank = -(-(len(labels) + 1) * percent // 100)
    own = np.sort(probabilities[np.arange(len(labels)), labels])[::-1]
    return float(own[rank - 1]) if rank <= len(own) else 0.0


def form_sets(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Which classes are in the set of each image: (n, K) bool. A set may be empty."""
    return probabilities >= threshold
