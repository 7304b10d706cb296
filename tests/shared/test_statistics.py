"""The paired statistics against hand-computed values, scipy and scikit-learn."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import confusion_matrix

from shared.compare.statistics import (
    compute_power,
    estimate_difference,
    find_detectable_shift,
    run_mcnemar_test,
    summarise,
)


def test_summary_by_hand():
    facts = summarise(np.array([2.0, 4.0, 9.0]))
    assert (facts.n, facts.mean, facts.low, facts.high) == (3, 5.0, 2.0, 9.0)
    assert facts.std == pytest.approx(math.sqrt((9 + 1 + 16) / 2))


def test_summary_of_one_value_has_no_spread():
    facts = summarise(np.array([0.5]))
    assert facts.mean == 0.5
    assert math.isnan(facts.std)


def test_paired_difference_by_hand():
    # Differences 1, 2, 3: mean 2, std 1, standard error 1/sqrt(3); t(0.975, 2) is 4.30265 in the printed tables.
    found = estimate_difference(np.array([10.0, 20.0, 30.0]), np.array([11.0, 22.0, 33.0]))
    assert (found.n, found.mean) == (3, 2.0)
    assert found.std == pytest.approx(1.0)
    assert found.half_width == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)
    assert found.includes_zero  # -0.48 to 4.48


@pytest.mark.parametrize("n", [2, 3, 5, 12])
def test_paired_difference_against_scipy(n):
    a, b = np.random.default_rng(n).normal(0.9, 0.02, (2, n))
    found = estimate_difference(a, b)
    reference = stats.ttest_rel(b, a)
    assert found.interval == pytest.approx(tuple(reference.confidence_interval(0.95)))
    assert found.includes_zero == (reference.pvalue >= 0.05)


def test_interval_without_zero():
    found = estimate_difference(np.array([0.90, 0.91, 0.92]), np.array([0.95, 0.96, 0.98]))
    assert not found.includes_zero
    assert found.interval[0] > 0


def test_equal_differences_leave_no_spread():
    """Float64 makes 0.2 - 0.1 and 0.3 - 0.2 unlike in the last digit; that is not noise between seeds."""
    found = estimate_difference(np.array([0.1, 0.2]), np.array([0.2, 0.3]))
    assert (found.std, found.half_width, found.detectable) == (0, 0, 0)
    assert not found.includes_zero
    assert estimate_difference(np.array([0.1, 0.2]), np.array([0.1, 0.2])).includes_zero


def test_one_pair_has_no_interval():
    found = estimate_difference(np.array([0.9]), np.array([0.8]))
    assert found.mean == pytest.approx(-0.1)
    assert math.isnan(found.half_width)
    assert math.isnan(found.detectable)


@pytest.mark.parametrize(("shift", "n"), [(1.0, 3), (3.0, 5), (3.0, 10), (2.0, 34)])
def test_power_against_the_noncentral_t_distribution(shift, n):
    limit = stats.t.ppf(0.975, n - 1)
    reference = stats.nct.sf(limit, n - 1, shift) + stats.nct.cdf(-limit, n - 1, shift)
    assert compute_power(shift, n, 0.05) == pytest.approx(reference, abs=1e-4)


def test_power_without_a_difference_is_the_level():
    assert compute_power(0.0, 5, 0.05) == pytest.approx(0.05, abs=1e-4)


def test_power_of_cohens_example():
    """A shift of half a standard deviation needs 34 pairs for 80 % power, and 33 are too few (Cohen's tables)."""
    assert compute_power(0.5 * math.sqrt(33), 33, 0.05) < 0.8 < compute_power(0.5 * math.sqrt(34), 34, 0.05)


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_detectable_shift_is_found_with_the_power_asked_for(n):
    shift = find_detectable_shift(n, 0.05, 0.8)
    samples = np.random.default_rng(0).normal(shift / math.sqrt(n), 1.0, (20_000, n))
    found = stats.ttest_1samp(samples, 0.0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.01)


def test_mcnemar_by_hand():
    """2x2 table: 4 both right, 1 only a, 5 only b, 2 both wrong.

    Exact two-sided p: 2 * (C(6, 0) + C(6, 1)) / 2**6 = 14 / 64.
    """
    right_a = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0], bool)
    right_b = np.array([1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 0, 0], bool)
    found = run_mcnemar_test(right_a, right_b)
    assert (found.both_right, found.only_a, found.only_b, found.both_wrong) == (4, 1, 5, 2)
    assert found.p == pytest.approx(14 / 64)
    swapped = run_mcnemar_test(right_b, right_a)
    assert (swapped.only_a, swapped.only_b, swapped.p) == (5, 1, found.p)


def test_mcnemar_without_discordant_images():
    right = np.array([True, False, True])
    assert run_mcnemar_test(right, right).p == 1.0


def test_mcnemar_counts_against_scikit_learn():
    generator = np.random.default_rng(0)
    right_a, right_b = generator.random(500) < 0.9, generator.random(500) < 0.8
    found = run_mcnemar_test(right_a, right_b)
    (both_wrong, only_b), (only_a, both_right) = confusion_matrix(right_a, right_b)
    assert (found.both_right, found.only_a, found.only_b, found.both_wrong) == (both_right, only_a, only_b, both_wrong)
    fewer, total = min(only_a, only_b), only_a + only_b
    assert found.p == pytest.approx(min(1.0, 2 * stats.binom.cdf(fewer, total, 0.5)))
