"""Whether a model's probabilities can be taken at their word, and the one number that sets them right."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import softmax

BINS = 15  # as many as in Guo et al.


@dataclass(frozen=True)
class Reliability:
    """Images in BINS bins of equal width by confidence, the probability of the predicted class.

    `count` (BINS,) int64; `confidence` and `accuracy` (BINS,) float64 are means over a bin's images, NaN where it has
    none. `error` is the expected calibration error: the mean over all images of how far the accuracy of an image's bin
    is from its confidence, a share.
    """

    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    error: float


def measure_reliability(confidence: np.ndarray, right: np.ndarray) -> Reliability:
    """The reliability of n answers with `confidence` (n,) in 0..1, of which `right` (n,) bool says which are right.

    A bin holds its upper edge and not its lower one. Source: Guo et al., https://arxiv.org/abs/1706.04599
    """
    place = np.digitize(confidence, np.linspace(0, 1, BINS + 1)[1:-1], right=True)  # (n,) in 0..BINS-1
    count = np.bincount(place, minlength=BINS)
    sums = [np.bincount(place, weights=values, minlength=BINS) for values in (confidence, right)]
    with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin
        means = [values / count for values in sums]
    return Reliability(count, *means, error=float(np.abs(sums[0] - sums[1]).sum() / len(place)))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """The temperature T for which softmax(logits / T) gives these images the smallest mean cross-entropy.

    `logits` (n, K) and `labels` (n,) int are of validation images. None where no finite T above 0 does: where all
    answers are right the loss falls without end as T goes to 0, and where the labels' logits are on average no larger
    than the others it falls as T grows.

    Source: Guo et al., https://arxiv.org/abs/1706.04599
    """
    logits = logits.astype(np.float64)
    size = np.abs(logits).max() or 1.0  # the search below is for a number that is not far from 1
    logits /= size
    own = logits[np.arange(len(labels)), labels]

    def slope(inverse: float) -> float:
        """The derivative of the loss by 1/T, which only grows with it."""
        return float(np.mean((softmax(inverse * logits, axis=1) * logits).sum(axis=1) - own))
    if np.all(own == logits.max(axis=1)) or slope(0.0) >= 0:
        return None
    high = 1.0
    while slope(high) <= 0:
        high *= 2
    return float(size / brentq(slope, 0.0, high, rtol=1e-10))
