"""What the numbers in the dashboard mean, and scores of saved predictions that need no framework.

train/loss      mean over the epoch's images of the loss that is minimised: `train.loss` in nats with smoothed and mixed
                targets and weighed classes, in training mode, before each update
train/accuracy  share of those images whose largest logit is the largest target
val/*, test/*   the same loss against the plain labels, without weights, and top-1 accuracy over all images (not a mean
                of classes)
"""

import math

import numpy as np
from scipy.special import log_softmax


def score(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Top-1 accuracy and mean cross-entropy in nats of `logits` (n, K) against `labels` (n,) int, in float64."""
    likelihood = log_softmax(logits.astype(np.float64), axis=1)
    return {"accuracy": float(np.mean(logits.argmax(axis=1) == labels)),
            "loss": float(-np.mean(likelihood[np.arange(len(labels)), labels]))}


def keep_exact_scores(found: dict[str, float], predictions: dict[str, np.ndarray]) -> dict[str, float]:
    """`found` with its accuracy and its loss as `score` computes them, where they are top-1 accuracy and cross-entropy.

    The frameworks' metrics divide in float32, and each framework adds up a loss in another order.
    """
    exact = score(predictions["logits"], predictions["label"])
    for name, tolerance in (("accuracy", 1e-6), ("loss", 1e-9)):
        if math.isclose(found.get(name, math.nan), exact[name], rel_tol=tolerance):
            found[name] = exact[name]
    return found


def name_by_split(val: dict[str, float], test: dict[str, float]) -> dict[str, float]:
    """Scores of both splits by their names in the dashboard."""
    return {f"{split}/{name}": value for split, scores in (("val", val), ("test", test))
            for name, value in scores.items()}
