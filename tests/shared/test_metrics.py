"""Scores against scikit-learn, and which epoch is the best."""

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss

from shared.config import Config
from shared.scores import make_scores_exact, name_scores_by_split, score_logits
from shared.training.best import BestEpoch


@pytest.fixture
def predictions():
    draws = np.random.default_rng(0)
    return {"logits": draws.normal(scale=5, size=(200, 7)).astype(np.float32), "label": draws.integers(0, 7, 200),
            "index": np.arange(200)}


def test_scores_are_scikit_learns(predictions):
    logits, label = predictions["logits"], predictions["label"]
    powers = np.exp(logits.astype(np.float64))
    found = score_logits(logits, label)
    assert found["accuracy"] == accuracy_score(label, logits.argmax(1))
    assert found["loss"] == pytest.approx(log_loss(label, powers / powers.sum(1, keepdims=True), labels=range(7)), 1e-9)


def test_scores_by_hand():
    found = score_logits(np.array([[0, 0], [math.log(3), 0], [0, math.log(3)]], np.float32), np.array([0, 0, 0]))
    assert found["accuracy"] == pytest.approx(2 / 3)  # of two equal logits the first counts
    assert found["loss"] == pytest.approx((math.log(2) + math.log(4 / 3) + math.log(4)) / 3)


def test_large_logits_overflow_nothing():
    assert score_logits(np.array([[1000.0, 0.0]], np.float32), np.array([1])) == {"accuracy": 0.0, "loss": 1000.0}


def test_half_precision_is_summed_in_double(predictions):
    logits = np.zeros((100_000, 2), np.float16)
    assert score_logits(logits, np.zeros(100_000, np.int64))["loss"] == pytest.approx(math.log(2), rel=1e-12)


def test_both_splits_by_their_names():
    found = name_scores_by_split({"loss": 1.0, "top5": 0.5}, {"loss": 2.0})
    assert found == {"val/loss": 1.0, "val/top5": 0.5, "test/loss": 2.0}


def test_top_1_accuracy_and_cross_entropy_are_kept_as_computed_here(predictions):
    exact = score_logits(predictions["logits"], predictions["label"])
    near = {"accuracy": float(np.float32(exact["accuracy"])), "loss": exact["loss"] * (1 + 1e-12), "top5": 0.1}
    assert make_scores_exact(near, predictions) == {**exact, "top5": 0.1}
    other = {"accuracy": exact["accuracy"] + 0.01, "loss": 0.5 * exact["loss"]}  # a metric and a loss of one's own
    assert make_scores_exact(dict(other), predictions) == other


def judge_of(monitor, mode=""):
    config = Config()
    config.train.monitor, config.train.monitor_mode = monitor, mode
    return BestEpoch(config)


@pytest.mark.parametrize(("monitor", "values", "better", "best"), [
    ("val/accuracy", [0.5, 0.7, 0.7, 0.6, 0.8], [True, True, False, False, True], 5),
    ("val/accuracy", [0.0, 0.0], [True, False], 1),
    ("val/loss", [2.0, 3.0, 2.0, 1.0], [True, False, False, True], 4),
    ("val/loss", [math.nan, math.nan, 3.0, math.nan, 2.0], [True, False, True, False, True], 5),
    ("val/accuracy", [math.nan, 0.1, math.nan], [True, True, False], 2),
    ("val/loss", [math.inf, 5.0], [True, True], 2),
])
def test_the_best_epoch(monitor, values, better, best):
    judge = judge_of(monitor)
    assert [judge.update(value, epoch) for epoch, value in enumerate(values, 1)] == better
    assert judge.epoch == best


def test_the_best_goes_on_from_its_state():
    judge = judge_of("val/loss")
    judge.update(2.0, 3)
    other = judge_of("val/loss")
    other.load_state_dict(judge.state_dict())
    assert (other.value, other.epoch) == (2.0, 3)
    assert not other.update(2.5, 4)
    assert other.update(1.5, 5)


def test_the_direction_of_a_metric_of_ones_own_is_told():
    judge = judge_of("val/margin", "min")
    assert [judge.update(value, epoch) for epoch, value in enumerate((3.0, 4.0, 2.0), 1)] == [True, False, True]
