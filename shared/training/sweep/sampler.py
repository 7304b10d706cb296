"""Which values a trial gets. Importing this module imports Optuna."""

import warnings
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial


class SharedSampler(BaseSampler):
    """Gives the trials of one number in all siblings' studies the same values, so that the siblings can be compared.

    Whichever sibling reaches a number first draws its values, and the others take them over. They are drawn from the
    results of one sibling, another for each number, so that the search serves all alike. The random draws depend on
    `seed` and number alone: a sweep that was killed goes on with the values that it would have had.
    """

    def __init__(self, seed: int):
        self.seed = seed
        self.studies: list[Study] = []  # of all siblings, filled in once they are there
        self.drawing: tuple[int, TPESampler] | None = None

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        return {}

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str,
                           param_distribution: BaseDistribution) -> Any:
        for other in self.studies:
            trials = other.get_trials(deepcopy=False)
            if other.study_name != study.study_name and trial.number < len(trials) and \
                    param_name in trials[trial.number].params:
                return trials[trial.number].params[param_name]
        if self.drawing is None or self.drawing[0] != trial.number:
            with warnings.catch_warnings():  # of arguments that may change
                warnings.simplefilter("ignore")
                tpe = TPESampler(seed=self.seed * 1_000_003 + trial.number, multivariate=False, constant_liar=True)
            self.drawing = trial.number, tpe
        source = self.studies[trial.number % len(self.studies)]
        return self.drawing[1].sample_independent(source, trial, param_name, param_distribution)
