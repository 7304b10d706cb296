"""The offered losses against their formulas, and the offered metrics against scikit-learn, in both siblings."""

import importlib

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

LOSSES = ("cross_entropy", "binary_cross_entropy", "focal")


# Losses against their formulas

def evaluate_loss(sibling, loss, logits, target, weights, smoothing, training=True):
    """A sibling's `build_loss` in float64, and its gradient with respect to the logits."""
    from shared.config import Config

    config = Config()
    config.train.loss, config.train.label_smoothing, config.train.focal_gamma = loss, smoothing, 1.5
    classifier = importlib.import_module(f"{sibling}_project.classifier")
    if sibling == "lightning":
        import torch

        torch.set_default_dtype(torch.float64)
        try:
            x = torch.tensor(logits, requires_grad=True)
            value = classifier.build_loss(config, weights, training)(x, torch.tensor(target))
        finally:
            torch.set_default_dtype(torch.float32)
        value.backward()
        return float(value), x.grad.numpy()
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)  # as the trainings below, and before TensorFlow works
    x = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = tf.reduce_mean(classifier.build_loss(config, weights, training).call(tf.constant(target), x))
    return float(value), tape.gradient(value, x).numpy()


def expected_loss(loss, logits, target, weights, smoothing):
    target = (1 - smoothing) * target + smoothing / target.shape[1]
    weights = np.ones(target.shape[1]) if weights is None else weights
    log_p, p = log_softmax(logits, axis=1), softmax(logits, axis=1)
    if loss == "binary_cross_entropy":
        terms = target * np.log1p(np.exp(-logits)) + (1 - target) * np.log1p(np.exp(logits))
        return (weights * terms).mean()
    factor = (1 - p) ** 1.5 if loss == "focal" else 1.0
    return -(weights * target * factor * log_p).sum(axis=1).mean()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighed", [False, True])
def test_a_loss_is_its_formula(sibling, loss, smoothing, weighed):
    draws = np.random.default_rng(0)
    logits, target = draws.normal(size=(6, 4)) * 3, draws.dirichlet(np.ones(4), 6)
    weights = np.array([0.5, 1.0, 2.0, 4.0]) if weighed else None
    value, gradient = sibling.call(evaluate_loss, loss, logits, target, weights, smoothing)
    assert value == pytest.approx(expected_loss(loss, logits, target, weights, smoothing), rel=1e-12)
    step = 1e-6
    for place in ((0, 0), (3, 2), (5, 3)):
        moved = logits.copy()
        moved[place] += step
        above = expected_loss(loss, moved, target, weights, smoothing)
        moved[place] -= 2 * step
        slope = (above - expected_loss(loss, moved, target, weights, smoothing)) / (2 * step)
        assert gradient[place] == pytest.approx(slope, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_evaluation_neither_smooths_nor_weighs(sibling, loss):
    logits, target = np.array([[2.0, -1.0], [0.5, 0.25]]), np.eye(2)
    value, _ = sibling.call(evaluate_loss, loss, logits, target, np.array([1.0, 9.0]), 0.3, False)
    assert value == pytest.approx(expected_loss(loss, logits, target, None, 0.0), rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_stays_finite_where_the_answer_is_certain(sibling, loss):
    value, gradient = sibling.call(evaluate_loss, loss, np.array([[800.0, -800.0]]), np.array([[1.0, 0.0]]), None, 0.0)
    assert value == pytest.approx(0, abs=1e-12)
    assert np.isfinite(gradient).all()


# Metrics against scikit-learn

def evaluate_metrics(sibling, batches, classes):
    from shared.config import Config

    config = Config()
    config.train.metrics = ["top5", "macro_f1"]
    if sibling == "keras":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
    classifier = importlib.import_module(f"{sibling}_project.classifier")
    built = classifier.build_metrics(config, classes)
    if sibling == "lightning":
        import torch

        for logits, labels in batches:
            for metric in built.values():
                metric.update(torch.tensor(logits), torch.tensor(labels))
        return {name: float(metric.compute()) for name, metric in built.items()}
    for logits, labels in batches:
        for metric in built:
            metric.update_state(np.eye(classes)[labels], logits)
    return {metric.name: float(metric.result()) for metric in built}


@pytest.mark.parametrize("classes", [3, 8])
def test_metrics_are_scikit_learns(sibling, classes):
    from sklearn.metrics import accuracy_score, f1_score, top_k_accuracy_score

    draws = np.random.default_rng(classes)
    logits, labels = draws.normal(size=(40, classes)), draws.integers(0, classes - 1, 40)  # the last class never occurs
    logits[:, -1] -= 20  # and is never answered
    found = sibling.call(evaluate_metrics, [(logits[:25], labels[:25]), (logits[25:], labels[25:])], classes)
    top = 1.0 if classes < 5 else top_k_accuracy_score(labels, logits, k=5, labels=np.arange(classes))
    answers = logits.argmax(axis=1)
    assert found == {"accuracy": pytest.approx(accuracy_score(labels, answers), abs=1e-6),
                     "top5": pytest.approx(top, abs=1e-6),
                     "macro_f1": pytest.approx(f1_score(labels, answers, average="macro"), abs=1e-6)}
