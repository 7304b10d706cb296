"""Rung 9: a run's scores against those that scikit-learn computes from its predictions."""

import json
import math

import numpy as np

from shared.parity.findings import Answer, Finding, find_worst
from shared.parity.request import Task

SCORES = 1e-6  # the largest difference that passes


def compare_scores(task: Task, answer: Answer) -> Finding:
    """Compare result.json with scikit-learn's scores of predictions.npz.

    The difference is infinite where a test image is missing or there twice.
    """
    from sklearn.metrics import accuracy_score, f1_score, top_k_accuracy_score

    result = json.loads((answer.run / "result.json").read_text(encoding="utf-8"))
    with np.load(answer.run / "predictions.npz") as file:
        logits, label, index = file["logits"].astype(np.float64), file["label"], file["index"]
    answers, classes = logits.argmax(axis=1), np.arange(logits.shape[1])
    expected = {"accuracy": accuracy_score(label, answers), "loss": compute_expected_loss(task, logits, label)}
    if "top5" in task.config.train.metrics:
        expected["top5"] = top_k_accuracy_score(label, logits, k=5, labels=classes) if len(classes) > 5 else 1.0
    if "macro_f1" in task.config.train.metrics:
        expected["macro_f1"] = f1_score(label, answers, average="macro")
    found = [(abs(result[f"test/{name}"] - value), f"test/{name}: {result[f'test/{name}']:.8g} in {answer.label}, "
              f"{value:.8g} by scikit-learn") for name, value in expected.items()]
    if not np.array_equal(np.sort(index), np.arange(len(index))):
        found.append((math.inf, "predictions.npz does not hold each test image once"))
    return find_worst(9, f"{answer.label}, {task.name.removeprefix('fit-')}", SCORES, found)


def compute_expected_loss(task: Task, logits: np.ndarray, label: np.ndarray) -> float:
    """The loss that evaluation reports, computed by scikit-learn or, for the focal loss, as its formula says."""
    from scipy.special import expit, softmax
    from sklearn.metrics import log_loss

    classes = np.arange(logits.shape[1])
    if task.config.train.loss == "binary_cross_entropy":
        return float(np.mean([log_loss(label == k, expit(logits[:, k]), labels=[False, True]) for k in classes]))
    p = softmax(logits, axis=1)
    if task.config.train.loss == "focal":
        own = p[np.arange(len(label)), label]
        return float(np.mean((1 - own) ** task.config.train.focal_gamma * -np.log(own)))
    return float(log_loss(label, p, labels=classes))
