"""Losses that Keras lacks, or has in another form, for targets that are shares of classes.

All take targets (n, K) that sum to 1 and logits (n, K), and return one number per image, (n,), of which Keras takes the
mean. `label_smoothing` moves that share of each target evenly to all classes (arXiv:1512.00567, section 7); `weight`
(K,) multiplies the part of the loss that a class has. The formulas are those of lightning_project/losses.py.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_project.executor import Tensor


class SoftTargetLoss(keras.losses.Loss):
    def __init__(self, weight: np.ndarray | None = None, label_smoothing: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.label_smoothing, self.weight = label_smoothing, weight

    def weigh(self, values: Tensor) -> Tensor:
        return values if self.weight is None else values * ops.cast(self.weight, values.dtype)

    def smooth(self, target: Tensor) -> Tensor:
        return (1 - self.label_smoothing) * target + self.label_smoothing / target.shape[1]


class CrossEntropy(SoftTargetLoss):
    """Keras' own CategoricalCrossentropy cannot weigh classes of mixed targets."""

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return -ops.sum(self.weigh(self.smooth(y_true)) * ops.log_softmax(y_pred, axis=1), axis=1)


class BinaryCrossEntropy(SoftTargetLoss):
    """Each class is a yes-or-no question of its own; the mean over classes (timm's recipe A1, arXiv:2110.00476).

    Keras' own smooths each question towards 1/2 and not towards 1/K.
    """

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        terms = ops.binary_crossentropy(self.smooth(y_true), y_pred, from_logits=True)
        return ops.mean(self.weigh(terms), axis=1)


class FocalLoss(SoftTargetLoss):
    """Cross-entropy times (1 - p)^gamma, where p is the class's probability (arXiv:1708.02002, equation 4).

    Keras' own clips the probabilities.
    """

    def __init__(self, gamma: float, weight: np.ndarray | None = None, label_smoothing: float = 0.0, **kwargs):
        super().__init__(weight, label_smoothing, **kwargs)
        self.gamma = gamma

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        log_p = ops.log_softmax(y_pred, axis=1)
        # Never 0, where a gamma below 1 has an infinite derivative.
        easiness = ops.maximum(-ops.expm1(log_p), tiny(log_p.dtype))
        return -ops.sum(self.weigh(self.smooth(y_true)) * easiness**self.gamma * log_p, axis=1)


def tiny(dtype: Any) -> float:
    """The smallest normal number of a floating-point type."""
    return float(np.finfo(keras.backend.standardize_dtype(dtype)).tiny)
