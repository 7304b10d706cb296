"""What a sweep concludes from its trials: ranks, their correlation, and what mattered."""

import numpy as np
import pytest

from shared.training.sweep import studies
from shared.training.sweep.results import correlate_ranks, rank_of

optuna = pytest.importorskip("optuna")


def test_one_training_that_diverged_does_not_decide_what_mattered():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(30):
        trial = study.ask()
        matters, diverges = trial.suggest_float("a", 0, 1), trial.suggest_float("b", 0, 1)
        study.tell(trial, 1e6 * diverges if number == 7 else matters)
    importance = studies.compute_importance(study)
    assert importance["a"] > 0.8
    assert sum(importance.values()) == pytest.approx(1)


def test_rank_correlation_is_scipys_and_its_interval_covers_it():
    from scipy.stats import spearmanr

    draw = np.random.default_rng(1)
    a = draw.normal(size=30).round(1)  # with ties
    b = (a + draw.normal(size=30)).round(1)
    found = correlate_ranks(a, b)
    assert found.rho == pytest.approx(spearmanr(a, b).statistic)
    assert found.low < found.rho < found.high
    assert found == correlate_ranks(a, b)
    assert (correlate_ranks(a, a).rho, correlate_ranks(a, -a).rho) == pytest.approx((1, -1))
    assert np.isnan(correlate_ranks(np.ones(5), a[:5]).rho)
    # About 95 % of the intervals of independent pairs hold 0.
    covered = [one.low <= 0 <= one.high for one in (correlate_ranks(*draw.normal(size=(2, 20))) for _ in range(60))]
    assert 0.8 < np.mean(covered) <= 1


def test_equal_values_share_the_best_rank():
    values = np.array([0.3, 0.1, 0.1, 0.2])
    assert [rank_of(values, place, "min") for place in range(4)] == [4, 1, 1, 3]
    assert [rank_of(values, place, "max") for place in range(4)] == [1, 3, 3, 2]
