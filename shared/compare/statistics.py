"""Is a difference between the siblings more than noise? Paired statistics over seeds and over test images.

Everything is paired, because both siblings share what makes a run lucky: a seed fixes split, order and initial weights,
and every run answers the same test images. scipy is imported where it is needed, for it takes a second.
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Summary:
    """`std` is the sample's (n - 1), NaN for a single value."""
    n: int
    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedDifference:
    """Mean of b - a over pairs, in the values' unit, and how far noise alone could have moved it.

    `half_width` is that of the confidence interval, and so the smallest mean difference that would exclude 0.
    `detectable` is the true difference that would be found with the power asked for. All but `n` and `mean` are NaN
    for a single pair, which knows no spread.
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
    """Images by which of two classifiers, a and b, had them right, and the exact two-sided p-value."""
    both_right: int
    only_a: int
    only_b: int
    both_wrong: int
    p: float


def summarise(values: np.ndarray) -> Summary:
    """Summary of `values`, (n,) with n at least 1."""
    values = np.asarray(values, np.float64)
    assert values.shape == (values.size,) != (0,), f"shape {values.shape}, expected (n,) with n at least 1"
    std = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    return Summary(len(values), float(values.mean()), std, float(values.min()), float(values.max()))


def estimate_difference(a: np.ndarray, b: np.ndarray, confidence: float = 0.95, power: float = 0.8) -> PairedDifference:
    """Student's interval of the mean of b - a, both (n,), one value per pair.

    The test that goes with it is two-sided at the level 1 - confidence.
    Source: Student, The probable error of a mean, https://doi.org/10.1093/biomet/6.1.1
    """
    difference = np.asarray(b, np.float64) - np.asarray(a, np.float64)
    facts = summarise(difference)
    if facts.n == 1:
        return PairedDifference(1, facts.mean, math.nan, math.nan, math.nan)
    from scipy.stats import t

    # What float64 leaves of equal differences is no spread: (0.3 - 0.2) - (0.2 - 0.1) is 3e-17.
    std = facts.std if facts.std > 1e-12 * float(np.abs([a, b]).max()) else 0.0
    error = std / math.sqrt(facts.n)
    half_width = float(t.ppf((1 + confidence) / 2, facts.n - 1)) * error
    return PairedDifference(facts.n, facts.mean, std, half_width,
                            find_detectable_shift(facts.n, 1 - confidence, power) * error)


def compute_power(shift: float, n: int, level: float) -> float:
    """Probability that a two-sided paired t test over `n` pairs rejects at `level` where the true mean is `shift`
    standard errors away from 0.

    Source: Cohen, Statistical Power Analysis, https://doi.org/10.4324/9780203771587, chapter 2; this is the tail of
    the noncentral t distribution, as a mean over the spread that the test will happen to see. scipy's own
    `nct.cdf` returns NaN at many of the arguments needed here.
    """
    from scipy.stats import chi2, norm, t

    quantiles = (np.arange(20_000) + 0.5) / 20_000
    limit = t.ppf(1 - level / 2, n - 1) * np.sqrt(chi2.ppf(quantiles, n - 1) / (n - 1))  # (20000,) standard errors
    return float(np.mean(norm.sf(limit - shift) + norm.cdf(-limit - shift)))


def find_detectable_shift(n: int, level: float, power: float) -> float:
    """The true mean, in standard errors, that a two-sided paired t test over `n` pairs finds with probability
    `power`."""
    from scipy.optimize import brentq

    high = 1.0
    while compute_power(high, n, level) < power:
        high *= 2
    return float(brentq(lambda shift: compute_power(shift, n, level) - power, 0.0, high, xtol=1e-6))


def run_mcnemar_test(right_a: np.ndarray, right_b: np.ndarray) -> McNemar:
    """Exact McNemar test of two classifiers on the same images; both arguments (n,) bool, whether each was right.

    Only images that one alone had right speak about a difference; were the two equally good, each such image would
    be a fair coin. Sources: McNemar, https://doi.org/10.1007/BF02295996; why this test for classifiers: Dietterich,
    https://doi.org/10.1162/089976698300017197
    """
    right_a, right_b = np.asarray(right_a), np.asarray(right_b)
    assert right_a.dtype == right_b.dtype == bool, f"{right_a.dtype} and {right_b.dtype}, expected bool"
    assert right_a.shape == right_b.shape, f"shapes {right_a.shape} and {right_b.shape} differ"
    from scipy.stats import binomtest

    only_a, only_b = int(np.sum(right_a & ~right_b)), int(np.sum(~right_a & right_b))
    p = float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0
    return McNemar(int(np.sum(right_a & right_b)), only_a, only_b, int(np.sum(~right_a & ~right_b)), p)
