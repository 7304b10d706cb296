"""What the metrics of a run mean, and scores of saved predictions, computed without a framework.

train/loss      `train.loss` in nats, the mean over the images of the epoch: in training mode, before each update, with
                smoothed or mixed targets and with class weights, as it is minimised
train/accuracy  the share of those images whose largest logit is that of the largest target
val/*, test/*   the same loss in evaluation mode, with plain labels and without class weights, and top-1 accuracy: the
                share of all images, not a mean over classes

The modules of this folder have the further scores, see docs/scores.md.
"""

import math

import numpy as np
from scipy.special import log_softmax


def score_logits(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Top-1 accuracy and mean cross-entropy in nats of `logits` (n, K) against `labels` (n,) int, in float64."""
    likelihood = log_softmax(logits.astype(np.float64), axis=1)
    return {"accuracy": float(np.mean(logits.argmax(axis=1) == labels)),
            "loss": float(-np.mean(likelihood[np.arange(len(labels)), labels]))}


def make_scores_exact(found: dict[str, float], predictions: dict[str, np.ndarray]) -> dict[str, float]:
    """`found`, with accuracy and loss replaced by those of `score_logits` where they differ by rounding alone.

    The frameworks' metrics divide in float32, and each framework adds up a loss in another order. What differs by more
    is another metric or another loss, and stays as it is.
    """
    exact = score_logits(predictions["logits"], predictions["label"])
    for name, tolerance in (("accuracy", 1e-6), ("loss", 1e-9)):
        if math.isclose(found.get(name, math.nan), exact[name], rel_tol=tolerance):
            found[name] = exact[name]
    return found


def name_scores_by_split(val: dict[str, float], test: dict[str, float]) -> dict[str, float]:
    """The scores of both splits in one dictionary, as val/NAME and test/NAME."""
    return {f"{split}/{name}": value for split, scores in (("val", val), ("test", test))
            for name, value in scores.items()}
