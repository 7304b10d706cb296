"""Weights of classes in the loss, for data in which some classes are rare."""

import numpy as np

from shared.errors import UserError


def weigh_classes(labels: np.ndarray, classes: tuple[str, ...], wanted: str) -> np.ndarray | None:
    """`train.class_weights` as a weight for each class, (K,) float64; None where all weigh the same.

    balanced: n / (K n_k), so that every class has the same share of the loss, as scikit-learn's class_weight does.
    sqrt: the root of that. Both are scaled so that the training images weigh 1 on average.

    Raises:
        UserError: where a class has no training image, whose weight would be infinite.
    """
    if wanted == "none":
        return None
    counts = np.bincount(labels, minlength=len(classes))
    if not counts.all():
        raise UserError(f"train.class_weights={wanted} needs training images of every class, and there is none of "
                        f"'{classes[int(np.argmin(counts))]}'; use none")
    weights = len(labels) / (len(classes) * counts)
    if wanted == "sqrt":
        weights = np.sqrt(weights)
    return weights / np.average(weights, weights=counts)
