"""Loss, metrics and optimizer of a classifier, compiled into the model."""

import keras
import tensorflow as tf

from keras_project.log_names import LAST_LOSS, PLAIN_LOSS
from keras_project.optim import LossScale, build_optimizer, update_rule
from shared.config import Config
from shared.errors import UserError
from shared.training.schedule import tabulate_average_decays


class LastLoss(keras.metrics.Metric):
    """The loss of the last batch alone, which `fit` reports only as a running mean."""

    def __init__(self, loss: keras.losses.Loss, name: str = LAST_LOSS, **kwargs):
        super().__init__(name=name, **kwargs)
        self.loss = loss
        self.value = self.add_variable((), "zeros", name="value")

    def update_state(self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None) -> None:
        # A loss is a replica's part of the sum over replicas; `fit` reports the mean over replicas of a metric.
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        self.value.assign(tf.cast(self.loss(y_true, y_pred) * replicas, self.value.dtype))

    def result(self) -> tf.Tensor:
        return self.value + 0.0  # a copy: the next batch overwrites the variable


def compile_classifier(config: Config, model: keras.Model, steps: int) -> None:
    """Compile a model from images (n, S, S, C) to logits (n, K) for targets (n, K) that sum to 1.

    Raises:
        UserError: where `hardware.steps_per_execution` does not divide the steps of an epoch.
    """
    if steps * config.train.accumulate % config.hardware.steps_per_execution:  # Keras would run into the next epoch
        raise UserError(f"hardware.steps_per_execution={config.hardware.steps_per_execution} does not divide the "
                        f"{steps} steps of an epoch; use a number that does, such as 1")
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=config.train.label_smoothing)
    # Weights leave out what only fills up a batch of evaluation; training has none.
    weighted = [
        keras.metrics.CategoricalAccuracy(name="accuracy"),
        # Plain cross-entropy: the loss itself has smoothed targets, in validation too.
        keras.metrics.CategoricalCrossentropy(name=PLAIN_LOSS, from_logits=True)]
    optimizer = build_optimizer(config, steps)
    if model.dtype_policy.name == "mixed_float16":
        optimizer = LossScale(optimizer, name="loss_scale")
    model.compile(optimizer=optimizer, loss=loss, metrics=[LastLoss(loss)],
                  weighted_metrics=weighted, jit_compile=config.hardware.compile,
                  steps_per_execution=config.hardware.steps_per_execution)
    # For all variables, before some of them are frozen, and before a checkpoint fills them.
    model.optimizer.build(model.trainable_variables)
    if config.train.ema_decay:
        update_rule(model.optimizer).average(model.variables, 1 - tabulate_average_decays(config, steps))
