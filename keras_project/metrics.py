"""Metrics that Keras lacks, or has in another form. In Lightning torchmetrics has them all."""

import keras
from keras import ops

from keras_project.executor import Tensor, executor
from keras_project.log_names import LAST_LOSS


class LastLoss(keras.metrics.Metric):
    """The loss of the last batch alone, which `fit` reports only as a running mean."""

    def __init__(self, loss: keras.losses.Loss, name: str = LAST_LOSS, **kwargs):
        super().__init__(name=name, **kwargs)
        self.loss = loss
        self.value = self.add_variable((), "zeros", name="value")

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> None:
        # A loss is a replica's part of the sum over replicas; `fit` reports the mean over replicas of a metric.
        self.value.assign(ops.cast(self.loss(y_true, y_pred) * executor.count_devices(), self.value.dtype))

    def result(self) -> Tensor:
        return self.value + 0.0  # a copy: the next batch overwrites the variable


def is_among_largest(y_true: Tensor, y_pred: Tensor, number: int) -> Tensor:
    """1 where fewer than `number` logits of an image are larger than that of its class, else 0: (n,).

    Keras' own TopKCategoricalAccuracy refuses float64.
    """
    own = ops.take_along_axis(y_pred, ops.argmax(y_true, axis=1)[:, None], axis=1)  # (n, 1)
    return ops.cast(ops.sum(ops.cast(y_pred > own, "int32"), axis=1) < number, y_pred.dtype)


class MacroF1(keras.metrics.Metric):
    """The mean over classes of 2 TP / (2 TP + FP + FN), for targets (n, K) and logits (n, K).

    Classes that occur neither among the targets nor among the answers are left out, as torchmetrics and scikit-learn
    do; Keras' own F1Score counts them as 0.
    """

    def __init__(self, classes: int, name: str = "macro_f1", **kwargs):
        super().__init__(name=name, **kwargs)
        self.classes = classes
        self.true, self.false, self.missed = (self.add_variable((classes,), "zeros", name=part)
                                              for part in ("true", "false", "missed"))

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> None:
        target, answer = (ops.one_hot(ops.argmax(values, axis=1), self.classes, dtype=self.dtype)
                          for values in (y_true, y_pred))
        weight = 1.0 if sample_weight is None else ops.cast(sample_weight, self.dtype)[:, None]
        for variable, counted in ((self.true, target * answer), (self.false, (1 - target) * answer),
                                  (self.missed, target * (1 - answer))):
            variable.assign_add(ops.sum(weight * counted, axis=0))

    def result(self) -> Tensor:
        total = 2 * self.true + self.false + self.missed
        scores = ops.where(total > 0, 2 * self.true / ops.maximum(total, 1), 0)
        return ops.sum(scores) / ops.maximum(ops.sum(ops.cast(total > 0, self.dtype)), 1)
