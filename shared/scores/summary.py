"""All scores of a model's predictions: what the files, the pictures and the terminal show."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, softmax

from shared.errors import UserError
from shared.runs.records import Predictions
from shared.scores.calibration import Reliability, fit_temperature, measure_reliability
from shared.scores.conformal import fit_threshold, form_sets

TOP = 5
# The scores that take validation images to fit.
FITTED = ("temperature", "scaled_log_loss", "scaled_calibration_error", "set_threshold", "set_size", "set_coverage")


@dataclass(frozen=True)
class ClassScores:
    """The scores of a class. What cannot be computed is None: the precision of a class that no image was taken for, the
    recall of one without test images.

    `support` is the number of its test images, and `predicted` of those that were taken for it. `taken_for` is the
    class that its images were most often taken for wrongly, `times` how often; empty and 0 where there was no mistake.
    """

    name: str
    support: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None
    taken_for: str
    times: int


@dataclass(frozen=True)
class Summary:
    """The scores of test images, and what was fitted on validation images.

    `scores` has every score by its name; None where it cannot be computed, of which `notes` say why. `confusion` (K, K)
    int64 counts test images by label, which is the row, and answer. `scaled` is the reliability at the temperature;
    None where there is none.
    """

    classes: tuple[str, ...]
    images: int
    val_images: int
    scores: dict[str, float | None]
    per_class: tuple[ClassScores, ...]
    confusion: np.ndarray
    reliability: Reliability
    scaled: Reliability | None
    notes: tuple[str, ...]


def summarise_predictions(test: Predictions, val: Predictions | None, classes: Sequence[str] = ()) -> Summary:
    """Score the predictions for the test images; temperature and sets are fitted on those for validation images.

    Probabilities are the softmax of the logits in float64. Without names, `classes` are called by their numbers.

    Raises:
        UserError: where a logit is not finite.
    """
    for part, name in ((test, "test"), (val, "validation")):
        if part is not None:
            require_finite(part, name)
    logits, label = test.logits.astype(np.float64), test.label
    count = logits.shape[1]
    names = tuple(classes) if len(classes) == count else tuple(map(str, range(count)))
    answer, p = logits.argmax(axis=1), softmax(logits, axis=1)
    reliability = measure_reliability(p.max(axis=1), answer == label)
    confusion, per_class = score_classes(label, answer, names)
    scores: dict[str, float | None] = {
        **score_answers(label, answer), "top5": score_top(logits, label),
        "log_loss": measure_log_loss(logits, label), "brier": score_brier(p, label),
        "calibration_error": reliability.error}
    fitted, scaled, notes = fit_on_validation(val, logits, p, label)
    return Summary(names, len(label), 0 if val is None else len(val.label), {**scores, **fitted}, per_class, confusion,
                   reliability, scaled, notes)


def require_finite(predictions: Predictions, name: str) -> None:
    """Raise `UserError` where a logit of the `name` images is not finite: they have neither scores nor an order."""
    if not np.isfinite(predictions.logits).all():
        raise UserError(f"logits of {name} images are not finite, so they have no scores; train with a lower "
                        "optimizer.lr, or look with debug.detect_anomaly=true")


def compute_interval(hits: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share of which `hits` of `count` were seen, after Wilson.

    Source: https://doi.org/10.1080/01621459.1927.10502953
    """
    from scipy.stats import binomtest

    found = binomtest(hits, count).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


def score_answers(label: np.ndarray, answer: np.ndarray) -> dict[str, float]:
    """Accuracy with its interval, and scikit-learn's averages of precision, recall and F1.

    A macro average is the mean over the classes that occur among labels or answers; a weighted one counts a class as
    often as it has images.
    """
    from sklearn.metrics import precision_recall_fscore_support

    hits = int(np.sum(answer == label))
    low, high = compute_interval(hits, len(label))
    found = {"accuracy": hits / len(label), "accuracy_low": low, "accuracy_high": high}
    for average in ("macro", "weighted"):
        values = precision_recall_fscore_support(label, answer, average=average, zero_division=0)[:3]
        found |= {f"{average}_{name}": float(value)
                  for name, value in zip(("precision", "recall", "f1"), values, strict=True)}
    return found


def score_top(logits: np.ndarray, label: np.ndarray) -> float | None:
    """The share of images whose label is among the TOP largest logits, the first counting among equal ones as for the
    answer itself; None where there are no more classes than that."""
    if logits.shape[1] <= TOP:
        return None
    own = logits[np.arange(len(label)), label][:, None]
    before = (logits > own) | ((logits == own) & (np.arange(logits.shape[1]) < label[:, None]))
    return float(np.mean(before.sum(axis=1) < TOP))


def measure_log_loss(logits: np.ndarray, label: np.ndarray) -> float:
    """The mean cross-entropy in nats; finite too where a probability is so small that it is 0."""
    return float(-np.mean(log_softmax(logits, axis=1)[np.arange(len(label)), label]))


def score_brier(p: np.ndarray, label: np.ndarray) -> float:
    """The mean over the images of the squared differences between probabilities and label, summed over the classes: 0
    to 2, as in Brier, https://doi.org/10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2"""
    own = p[np.arange(len(label)), label]
    return float(np.mean((p ** 2).sum(axis=1) - 2 * own + 1))


def score_classes(label: np.ndarray, answer: np.ndarray,
                  names: tuple[str, ...]) -> tuple[np.ndarray, tuple[ClassScores, ...]]:
    """The confusion matrix (K, K), whose rows are labels, and the scores of each class."""
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    every = np.arange(len(names))
    confusion = confusion_matrix(label, answer, labels=every).astype(np.int64)
    *shares, support = precision_recall_fscore_support(label, answer, labels=every, zero_division=np.nan)
    mistakes = confusion * (1 - np.eye(len(names), dtype=np.int64))
    worst, times = mistakes.argmax(axis=1), mistakes.max(axis=1)
    return confusion, tuple(
        ClassScores(names[k], int(support[k]), int(confusion[:, k].sum()),
                    *(None if math.isnan(share[k]) else float(share[k]) for share in shares),
                    names[worst[k]] if times[k] else "", int(times[k])) for k in every)


def fit_on_validation(val: Predictions | None, logits: np.ndarray, p: np.ndarray, label: np.ndarray,
                      ) -> tuple[dict[str, float | None], Reliability | None, tuple[str, ...]]:
    """The scores that need validation images, measured on the test images, whose logits and probabilities are (n, K);
    the reliability at the temperature; and notes on what is missing."""
    found: dict[str, float | None] = dict.fromkeys(FITTED)
    if val is None:
        return found, None, ("no validation predictions, so no temperature and no sets",)
    own = val.logits[np.arange(len(val.label)), val.label].astype(np.float64)
    rows, notes, scaled = np.arange(len(label)), [], None
    temperature = fit_temperature(val.logits, val.label)
    if temperature is None:
        why = "no class is above the label for any validation image, so that the lowest one would be the best" \
            if own.mean() > val.logits.mean(dtype=np.float64) else "the answers for validation images are mere guesses"
        notes.append(f"no temperature: {why}")
    else:
        cooled = softmax(logits / temperature, axis=1)
        scaled = measure_reliability(cooled.max(axis=1), logits.argmax(axis=1) == label)
        found |= {"temperature": temperature, "scaled_log_loss": measure_log_loss(logits / temperature, label),
                  "scaled_calibration_error": scaled.error}
    threshold = fit_threshold(softmax(val.logits.astype(np.float64), axis=1), val.label)
    sets = form_sets(p, threshold)
    if threshold == 0:
        notes.append(f"every set holds all classes: {len(val.label):,} validation images allow no smaller ones")
    return found | {"set_threshold": threshold, "set_size": float(sets.sum(axis=1).mean()),
                    "set_coverage": float(sets[rows, label].mean())}, scaled, tuple(notes)
