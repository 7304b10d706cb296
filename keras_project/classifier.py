"""Loss, metrics and optimizer of a classifier, compiled into the model."""

from functools import partial

import keras
import numpy as np
from keras import ops

from keras_project.executor import executor
from keras_project.log_names import PLAIN_LOSS
from keras_project.losses import BinaryCrossEntropy, CrossEntropy, FocalLoss
from keras_project.metrics import LastLoss, MacroF1, is_among_largest
from keras_project.optim import build_optimizer, refuse_lost_settings
from shared.config import Config
from shared.errors import UserError
from shared.scores import make_scores_exact
from shared.training.seams import explain_bad_loss, explain_bad_metric, validate_metric_names

FILE = "keras_project/classifier.py"


def build_loss(config: Config, class_weights: np.ndarray | None = None, training: bool = True) -> keras.losses.Loss:
    """The loss of targets (n, K) that sum to 1 and logits (n, K). Its `call` returns one number per image, (n,).

    In evaluation, `training` false, targets are not smoothed and classes not weighed. `class_weights` is (K,) or None.
    """
    settings = config.train
    weight, smoothing = (class_weights, settings.label_smoothing) if training else (None, 0.0)
    if settings.loss == "binary_cross_entropy":
        return BinaryCrossEntropy(weight, smoothing)
    if settings.loss == "focal":
        return FocalLoss(settings.focal_gamma, weight, smoothing)
    if weight is not None:
        return CrossEntropy(weight, smoothing)
    return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)


def build_metrics(config: Config, classes: int) -> list[keras.metrics.Metric]:
    """The metrics beside the loss; by their names they are logged as train/<name>, val/<name> and test/<name>.

    Each is updated with targets (n, K) and logits (n, K), and results in one number.
    """
    metrics = [keras.metrics.CategoricalAccuracy(name="accuracy")]
    if "top5" in config.train.metrics:
        metrics.append(keras.metrics.MeanMetricWrapper(is_among_largest, name="top5", number=5))
    if "macro_f1" in config.train.metrics:
        metrics.append(MacroF1(classes, name="macro_f1"))
    return metrics


def validate_seams(loss: keras.losses.Loss, metrics: list[keras.metrics.Metric], classes: int) -> None:
    """Try loss and metrics on two images. Raises `UserError` where one of them cannot be trained with."""
    validate_metric_names((metric.name for metric in metrics), FILE)
    logits, target = ops.zeros((2, classes)), ops.one_hot(np.array([0, classes - 1]), classes)
    try:
        values, gradient = executor.differentiate(partial(loss.call, target), logits)
        if values.shape != (2,) or gradient is None:
            raise ValueError(f"its call returns a tensor of shape {tuple(values.shape)}, expected (2,), one number per "
                             "image, with a gradient")
    except Exception as error:
        raise explain_bad_loss(str(error), classes, FILE) from error
    for metric in metrics:
        try:
            metric.update_state(target, logits)
            float(metric.result())
        except Exception as error:
            raise explain_bad_metric(metric.name, str(error), FILE) from error
        metric.reset_state()


def score_predictions(config: Config, classes: int, predictions: dict[str, np.ndarray]) -> dict[str, float]:
    """Loss and metrics of saved predictions, logits (n, K) and label (n,); the loss in float64."""
    logits = ops.convert_to_tensor(predictions["logits"], "float64")
    target = ops.one_hot(predictions["label"], classes, dtype="float64")
    found = {"loss": float(ops.mean(build_loss(config, training=False).call(target, logits)))}
    for metric in build_metrics(config, classes):
        metric.update_state(target, ops.cast(logits, metric.dtype))
        found[metric.name] = float(metric.result())
    return make_scores_exact(found, predictions)


def compile_classifier(config: Config, model: keras.Model, steps: int,
                       class_weights: np.ndarray | None = None) -> None:
    """Compile a model from images (n, S, S, C) to logits (n, K) for targets (n, K) that sum to 1.

    Raises:
        UserError: where `hardware.steps_per_execution` does not divide the steps of an epoch, or where the optimizer
            would leave out what the config asks for.
    """
    if steps * config.train.accumulate % config.hardware.steps_per_execution:  # Keras would run into the next epoch
        raise UserError(f"hardware.steps_per_execution={config.hardware.steps_per_execution} does not divide the "
                        f"{steps} steps of an epoch; use a number that does, such as 1")
    classes = model.output_shape[-1]
    loss, plain_loss, metrics = build_loss(config, class_weights), build_loss(config, training=False), build_metrics(
        config, classes)
    validate_seams(loss, metrics, classes)
    # Weights leave out what only fills up a batch of evaluation; training has none. The loss itself has smoothed
    # targets in validation too, so the plain one is a metric.
    weighted = [*metrics, keras.metrics.MeanMetricWrapper(plain_loss.call, name=PLAIN_LOSS)]
    optimizer = build_optimizer(config, steps)
    refuse_lost_settings(config, optimizer)
    if model.dtype_policy.name == "mixed_float16":
        optimizer = executor.LossScale(optimizer, name="loss_scale")
    model.compile(optimizer=optimizer, loss=loss, metrics=[LastLoss(loss)],
                  weighted_metrics=weighted, jit_compile=config.hardware.compile or executor.ALWAYS_COMPILES,
                  steps_per_execution=config.hardware.steps_per_execution)
    # For all variables, before some of them are frozen, and before a checkpoint fills them.
    model.optimizer.build(model.trainable_variables)
