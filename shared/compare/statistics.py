"""Paired statistics over seeds and over test images, which tell a difference between the siblings from noise.

They are paired because runs of one seed share much of their luck: split, order and initial weights, and because all
runs predict the same test images. scipy is imported inside functions, since importing it takes a second.
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Summary:
    """`std` is the standard deviation of the sample, with n - 1 in the denominator; NaN for a single value."""
    n: int
    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedDifference:
    """The mean of b - a over pairs, in the values' unit, and its uncertainty.

    `std` is the standard deviation of the differences. `half_width` is half the width of the confidence interval, and
    so the smallest mean difference whose interval would not include 0. `detectable` is the true difference that the
    test would find with the power asked for. Except for `n` and `mean` all are NaN for a single pair.
    """
    n: int
    mean: float
    std: float
    half_width: float
    detectable: float

    @property
    def interval(self) -> tuple[float, float]:
        return self.mean - self.half_width, self.mean + self.half_width

    @property
    def includes_zero(self) -> bool:
        low, high = self.interval
        return low <= 0 <= high


@dataclass(frozen=True)
class McNemar:
    """Numbers of images that two classifiers, a and b, classified rightly or wrongly, and the exact two-sided p-value.
    """
    both_right: int
    only_a: int
    only_b: int
    both_wrong: int
    p: float


def summarise(values: np.ndarray) -> Summary:
    """The summary of `values`, (n,) with n at least 1."""
    values = np.asarray(values, np.float64)
    assert values.shape == (values.size,) != (0,), f"shape {values.shape}, expected (n,) with n at least 1"
    std = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    return Summary(len(values), float(values.mean()), std, float(values.min()), float(values.max()))


def estimate_difference(a: np.ndarray, b: np.ndarray, confidence: float = 0.95, power: float = 0.8) -> PairedDifference:
    """The mean of b - a and its confidence interval after Student; `a` and `b` are (n,), and a[i] pairs with b[i].

    The interval leaves out 0 where the two-sided paired t test rejects at the level 1 - confidence.
    Source: Student, The probable error of a mean, https://doi.org/10.1093/biomet/6.1.1
    """
    difference = np.asarray(b, np.float64) - np.asarray(a, np.float64)
    facts = summarise(difference)
    if facts.n == 1:
        return PairedDifference(1, facts.mean, math.nan, math.nan, math.nan)
    from scipy.stats import t

    # Differences that are equal but for rounding have no spread: (0.3 - 0.2) - (0.2 - 0.1) is 3e-17 in float64.
    std = facts.std if facts.std > 1e-12 * float(np.abs([a, b]).max()) else 0.0
    error = std / math.sqrt(facts.n)
    half_width = float(t.ppf((1 + confidence) / 2, facts.n - 1)) * error
    return PairedDifference(facts.n, facts.mean, std, half_width,
                            find_detectable_shift(facts.n, 1 - confidence, power) * error)


def compute_power(shift: float, n: int, level: float) -> float:
    """The probability that a two-sided paired t test over `n` pairs rejects at `level` where the true mean is `shift`
    standard errors away from 0.

    It is a tail of the noncentral t distribution, computed as a mean over the distribution of the sample's standard
    deviation, since scipy's `nct.cdf` returns NaN at many of the arguments needed here.
    Source: Cohen, Statistical Power Analysis, https://doi.org/10.4324/9780203771587, chapter 2
    """
    from scipy.stats import chi2, norm, t

    quantiles = (np.arange(20_000) + 0.5) / 20_000
    limit = t.ppf(1 - level / 2, n - 1) * np.sqrt(chi2.ppf(quantiles, n - 1) / (n - 1))  # (20000,) standard errors
    return float(np.mean(norm.sf(limit - shift) + norm.cdf(-limit - shift)))


def find_detectable_shift(n: int, level: float, power: float) -> float:
    """The true mean, in standard errors, at which a two-sided paired t test over `n` pairs has the wanted `power`."""
    from scipy.optimize import brentq

    high = 1.0
    while compute_power(high, n, level) < power:
        high *= 2
    return float(brentq(lambda shift: compute_power(shift, n, level) - power, 0.0, high, xtol=1e-6))


def run_mcnemar_test(right_a: np.ndarray, right_b: np.ndarray) -> McNemar:
    """The exact McNemar test of two classifiers; the arguments, (n,) bool, say which of the same images each had right.

    Only images that one of them alone had right tell the two apart. If both are equally good, each of these images is
    as likely to be the one's as the other's.
    Sources: McNemar, https://doi.org/10.1007/BF02295996; Dietterich on why to use this test for classifiers,
    https://doi.org/10.1162/089976698300017197
    """
    right_a, right_b = np.asarray(right_a), np.asarray(right_b)
    assert right_a.dtype == right_b.dtype == bool, f"{right_a.dtype} and {right_b.dtype}, expected bool"
    assert right_a.shape == right_b.shape, f"shapes {right_a.shape} and {right_b.shape} differ"
    from scipy.stats import binomtest

    only_a, only_b = int(np.sum(right_a & ~right_b)), int(np.sum(~right_a & right_b))
    p = float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0
    return McNemar(int(np.sum(right_a & right_b)), only_a, only_b, int(np.sum(~right_a & ~right_b)), p)
