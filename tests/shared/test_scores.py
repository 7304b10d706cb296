"""All scores of predictions, against scikit-learn and values by hand; temperature and sets that validation fits."""

import math
import warnings

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import classification_report, log_loss, top_k_accuracy_score

from shared.errors import UserError
from shared.runs.records import Predictions
from shared.scores.calibration import fit_temperature, measure_reliability
from shared.scores.conformal import fit_threshold, form_sets
from shared.scores.summary import FITTED, compute_interval, score_top, summarise_predictions


def make(logits, label):
    return Predictions(np.arange(len(label)), np.asarray(label), np.asarray(logits, np.float32))


def draw(seed, count=400, classes=7, temperature=1.0):
    """Predictions that would be calibrated if their logits were divided by `temperature`."""
    draws = np.random.default_rng(seed)
    logits = draws.normal(scale=2, size=(count, classes))
    label = (logits + draws.gumbel(size=logits.shape)).argmax(axis=1)
    return make(temperature * logits, label)


@pytest.fixture(scope="module")
def summary():
    return summarise_predictions(draw(0), draw(1))


def test_scores_are_scikit_learns(summary):
    test = draw(0)
    p, answer = softmax(test.logits.astype(np.float64), axis=1), test.logits.argmax(axis=1)
    report = classification_report(test.label, answer, output_dict=True)
    found = summary.scores
    assert found["accuracy"] == report["accuracy"]
    for average in ("macro", "weighted"):
        for name, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            assert found[f"{average}_{name}"] == pytest.approx(report[f"{average} avg"][theirs], rel=1e-12)
    assert found["log_loss"] == pytest.approx(log_loss(test.label, p), rel=1e-9)
    assert found["top5"] == top_k_accuracy_score(test.label, test.logits, k=5)
    assert found["brier"] == pytest.approx(np.mean(((p - np.eye(7)[test.label]) ** 2).sum(axis=1)), rel=1e-12)
    for one in summary.per_class:
        theirs = report[one.name]
        assert (one.precision, one.recall, one.f1, one.support) == tuple(theirs.values())
        others = summary.confusion[int(one.name)].copy()
        others[int(one.name)] = 0
        assert (one.taken_for, one.times) == (str(others.argmax()), others.max())
        assert one.predicted == np.sum(answer == int(one.name))


@pytest.mark.parametrize(("hits", "count", "low", "high"), [
    (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)])
def test_the_interval_is_the_published_one(hits, count, low, high):
    """Newcombe, Two-sided confidence intervals for the single proportion, 1998, table I, method 3."""
    assert compute_interval(hits, count) == pytest.approx((low, high), abs=5e-5)


# Calibration

def test_calibration_error_by_hand():
    # Bins of 1/15: 0.95 is in the last, 0.55 in the ninth, 0.65 in the tenth. The gaps are 0.45 twice, 0.45 and 0.65.
    found = measure_reliability(np.array([0.95, 0.95, 0.55, 0.65]), np.array([True, False, True, False]))
    assert found.error == pytest.approx((2 * 0.45 + 0.45 + 0.65) / 4)
    assert found.count.tolist() == [0] * 8 + [1, 1, 0, 0, 0, 0, 2]
    assert found.accuracy[[8, 9, 14]].tolist() == [1.0, 0.0, 0.5]
    assert np.isnan(found.accuracy[0])


def test_a_bin_holds_its_upper_edge():
    found = measure_reliability(np.linspace(0, 1, 16)[1:], np.ones(15, bool))
    assert found.count.tolist() == [1] * 15


def test_a_sure_model_that_is_right_has_no_calibration_error():
    found = summarise_predictions(make([[800, 0], [0, 800]], [0, 1]), None).scores
    assert (found["calibration_error"], found["brier"], found["log_loss"]) == (0, 0, 0)


def test_the_temperature_is_the_one_that_was_drawn_with_and_the_best():
    val = draw(2, 20_000, temperature=2.5)
    found = fit_temperature(val.logits, val.label)
    assert found == pytest.approx(2.5, rel=0.03)

    def measure(temperature):
        return log_loss(val.label, softmax(val.logits.astype(np.float64) / temperature, axis=1))
    assert measure(found) <= min(measure(found * 1.001), measure(found / 1.001))


def test_the_temperature_mends_the_calibration_of_other_images():
    found = summarise_predictions(draw(3, 5000, temperature=3), draw(4, 5000, temperature=3))
    assert found.scores["calibration_error"] > 0.1
    assert found.scores["scaled_calibration_error"] == found.scaled.error < 0.02
    assert found.scores["scaled_log_loss"] < found.scores["log_loss"]


@pytest.mark.parametrize(("logits", "label", "why"), [
    ([[2, 0]], [0], "no class is above the label for any validation image"),
    ([[1, 1, 0]], [1], "no class is above the label for any validation image"),  # though the answer is wrong
    ([[1, 1]], [1], "the answers for validation images are mere guesses"),
    ([[2, 0]], [1], "the answers for validation images are mere guesses"),
    ([[0, 0, 0], [0, 1, 0]], [2, 0], "the answers for validation images are mere guesses")])
def test_where_no_temperature_is_best_there_is_none(logits, label, why):
    found = summarise_predictions(draw(0, classes=len(logits[0])), make(logits, label))
    assert found.scores["temperature"] is found.scores["scaled_log_loss"] is found.scaled is None
    assert why in found.notes[0]


def test_a_temperature_far_from_1_is_found():
    val = draw(5, 2000)
    for factor in (1e-6, 1e4, 1e30):
        assert fit_temperature(factor * val.logits, val.label) == pytest.approx(
            factor * fit_temperature(val.logits, val.label), rel=1e-5)


# Sets

def test_the_threshold_by_hand():
    # Of 19 images the ceil(20 * 0.9) = 18th largest probability of the right class, so the second smallest.
    p = np.linspace(0.05, 0.95, 19)
    found = fit_threshold(np.stack([p, 1 - p], axis=1), np.zeros(19, int))
    assert found == p[1]
    assert form_sets(np.array([[0.95, 0.05], [0.5, 0.5], [0.1, 0.9]]), found).sum(axis=1).tolist() == [1, 2, 2]


@pytest.mark.parametrize(("count", "threshold"), [(1, 0), (8, 0), (9, 0.25)])
def test_few_validation_images_allow_no_sets_but_that_of_all_classes(count, threshold):
    val = make(np.log([[0.25, 0.5, 0.25]] * count), [0] * count)
    found = summarise_predictions(draw(0, classes=3), val)
    assert found.scores["set_threshold"] == pytest.approx(threshold)
    if count < 9:
        assert (found.scores["set_size"], found.scores["set_coverage"]) == (3, 1)
        assert f"every set holds all classes: {count} validation images allow no smaller ones" in found.notes


def test_sets_hold_the_label_as_often_as_asked():
    found = [summarise_predictions(draw(seed, 500), draw(seed + 100, 99)).scores["set_coverage"] for seed in range(40)]
    assert np.mean(found) == pytest.approx(0.9, abs=0.02)  # of 99 images it is 90 % on average, exactly


# Odd predictions

def test_a_class_without_test_images():
    logits = np.eye(4)[[0, 1, 2, 1]]
    found = summarise_predictions(make(logits, [0, 1, 1, 1]), None, "abcd")
    c, d = found.per_class[2:]
    assert (c.support, c.predicted, c.precision, c.recall, c.f1) == (0, 1, 0.0, None, 0.0)
    assert (d.support, d.predicted, d.precision, d.recall, d.f1, d.taken_for) == (0, 0, None, None, None, "")
    assert found.scores["macro_recall"] == pytest.approx((1 + 2 / 3 + 0) / 3)  # scikit-learn's: c counts 0
    assert (found.per_class[1].taken_for, found.per_class[1].times) == ("c", 1)


def test_without_validation_predictions_the_rest_is_there():
    found = summarise_predictions(draw(0), None)
    assert [name for name, value in found.scores.items() if value is None] == list(FITTED)
    assert (found.val_images, found.scaled) == (0, None)
    assert found.notes == ("no validation predictions, so no temperature and no sets",)


@pytest.mark.parametrize("classes", [2, 5, 6])
def test_few_classes_have_no_top_5(classes):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = summarise_predictions(draw(0, classes=classes), draw(1, classes=classes))
    assert (found.scores["top5"] is None) == (classes <= 5)
    assert found.confusion.sum() == 400


def test_of_equal_logits_the_first_classes_count():
    logits = np.zeros((7, 7))
    assert score_top(logits, np.arange(7)) == 5 / 7
    assert summarise_predictions(make(logits, range(7)), None).confusion[:, 0].tolist() == [1] * 7


def test_probabilities_of_exactly_0():
    test = make([[2000, 0, -2000]] * 10, [0] * 9 + [2])
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        found = summarise_predictions(test, test)
    assert found.scores["log_loss"] == pytest.approx(400)
    assert found.scores["set_coverage"] == 1
    assert all(value is None or math.isfinite(value) for value in found.scores.values())


def test_names_that_are_not_as_many_as_the_classes_are_left_out():
    assert summarise_predictions(draw(0, classes=3), None, ["a", "b"]).classes == ("0", "1", "2")


def test_logits_that_are_not_finite_are_told():
    with pytest.raises(UserError, match="logits of validation images are not finite"):
        summarise_predictions(draw(0, classes=2), make([[0, math.nan]], [0]))
