"""What the numbers in the dashboard mean, and the final scores.

train/loss      mean over the epoch's images of the loss that is minimised: cross-entropy in nats with the smoothed and
                mixed targets, in training mode, before each update
train/accuracy  share of those images whose largest logit is the largest target
val/*, test/*   cross-entropy against the plain labels, and top-1 accuracy over all images (not a mean of classes)
"""

import numpy as np
from scipy.special import log_softmax


def score_splits(val: dict[str, np.ndarray], test: dict[str, np.ndarray]) -> dict[str, float]:
    """The final scores by their names in the dashboard, from predictions of both splits: logits (n, K), label (n,)."""
    return {f"{split}/{name}": value for split, predictions in (("val", val), ("test", test))
            for name, value in score(predictions["logits"], predictions["label"]).items()}


def score(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Top-1 accuracy and mean cross-entropy in nats of `logits` (n, K) against `labels` (n,) int, in float64."""
    likelihood = log_softmax(logits.astype(np.float64), axis=1)
    return {"accuracy": float(np.mean(logits.argmax(axis=1) == labels)),
            "loss": float(-np.mean(likelihood[np.arange(len(labels)), labels]))}
