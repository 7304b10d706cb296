"""What a sweep has found: the trials of all siblings side by side, and whether one's best setting is the other's."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shared.training.sweep.definition import Sweep
from shared.training.sweep.studies import list_trials

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

RESAMPLES = 10_000
FEWEST = 5  # trials of which a correlation is worth a line


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of `n` pairs, and the interval that holds 95 % of those of resampled pairs. NaN where
    all values are equal."""
    n: int
    rho: float
    low: float
    high: float


def correlate_ranks(a: np.ndarray, b: np.ndarray, seed: int = 0) -> Correlation:
    """Spearman's rank correlation of `a` and `b`, (n,) with n at least 2, and its bootstrap interval over pairs.

    Equal values share the mean of their ranks. Resamples of equal values have no correlation, and are left out.
    Source: Efron, Bootstrap methods, https://doi.org/10.1214/aos/1176344552
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape == (a.size,), f"shapes {a.shape} and {b.shape}, expected (n,)"
    draws = np.random.default_rng(seed).integers(0, a.size, (RESAMPLES, a.size))
    found = correlate_rows(a[draws], b[draws])
    found = found[np.isfinite(found)]
    low, high = np.quantile(found, [0.025, 0.975]) if len(found) else (np.nan, np.nan)
    return Correlation(a.size, float(correlate_rows(a[None], b[None])[0]), float(low), float(high))


def correlate_rows(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each row of `a` with that of `b`, (m, n) each; (m,), NaN where a row is constant."""
    from scipy.stats import rankdata

    a, b = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (rankdata(a, axis=1), rankdata(b, axis=1)))
    spread = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.divide((a * b).sum(axis=1), spread, out=np.full(len(a), np.nan), where=spread > 0)


def find_shared(studies: dict[str, "Study"]) -> tuple[list[int], list[np.ndarray]]:
    """Numbers of the trials that finished in all siblings with the same values, and their metric in each, (n,)."""
    rows = [{trial.number: trial for trial in list_trials(study, "COMPLETE")} for study in studies.values()]
    numbers = [number for number in sorted(set.intersection(*map(set, rows)))
               if len({repr(row[number].params) for row in rows}) == 1]
    return numbers, [np.array([row[number].value for number in numbers]) for row in rows]


def rank_of(values: np.ndarray, place: int, direction: str) -> int:
    """The rank of the value at `place` among `values`, 1 for the best; of equal ones the best rank."""
    better = values < values[place] if direction == "min" else values > values[place]
    return 1 + int(better.sum())


def find_best(sweep: Sweep, study: "Study") -> "FrozenTrial | None":
    """The finished trial with the best metric, of equal ones the first; None where none has finished."""
    sign = 1 if sweep.direction == "min" else -1
    return min(list_trials(study, "COMPLETE"), key=lambda trial: sign * trial.value, default=None)


def answer_question(sweep: Sweep, studies: dict[str, "Study"]) -> list[str]:
    """Sentences on whether the best setting of one sibling is the best of the other; none for a single sibling."""
    if len(studies) < 2:
        return []
    numbers, (a, b) = find_shared(studies)
    if len(numbers) < FEWEST:
        return [f"Is the best setting of one framework the best of the other? {len(numbers)} trials finished in both, "
                f"and fewer than {FEWEST} tell nothing."]
    found = correlate_ranks(a, b)
    choose = np.argmin if sweep.direction == "min" else np.argmax
    names, said = list(studies), []
    for name, other, own, others in ((names[0], names[1], a, b), (names[1], names[0], b, a)):
        best = int(choose(own))
        rank = rank_of(others, best, sweep.direction)
        said.append(f"Of these, the best of {name}, trial {numbers[best] + 1}, is number {rank} of {len(numbers)} in "
                    f"{other}: {sweep.metric} {others[best]:.4f}, where {other}'s own best has "
                    f"{others[choose(others)]:.4f}.")
    same = "yes" if int(choose(a)) == int(choose(b)) else "no, not the very same"
    return [f"Is the best setting of one framework the best of the other? Over the {found.n} trials that finished in "
            f"both: {same}. Rank correlation (Spearman) {found.rho:.2f}, 95 % interval {found.low:.2f} to "
            f"{found.high:.2f} (bootstrap over trials).", *said]
