"""Weights of the classes in the loss, for data in which some classes are rare."""

import numpy as np

from shared.errors import UserError


def weigh_classes(labels: np.ndarray, classes: tuple[str, ...], wanted: str) -> np.ndarray | None:
    """A weight for each class, (K,) float64, as `train.class_weights` asks for by `wanted`; None where that is none.

    With balanced, class k has the weight n / (K n_k), as in scikit-learn's `class_weight`, so that every class has the
    same share of the loss: n is the number of images, n_k that of class k. With sqrt it has the root of that. The
    weights are then scaled so that their mean over the training images is 1.

    `labels` are those of the training images, (n,) int64.

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
