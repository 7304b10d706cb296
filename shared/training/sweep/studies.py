"""What a sweep has tried and found: a study of Optuna's for each sibling, all in one store.

The trial of a number has the same values in every study. Optuna is imported inside functions, since a grid and --help
do without it.
"""

import contextlib
import importlib.util
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.errors import UserError, shorten, summarise_error
from shared.training.sweep.definition import Sweep, describe_sweep
from shared.training.sweep.space import format_value

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

PATIENCE = 60.0  # seconds to wait for a SQLite file that another process is writing
ADVICE = "nothing is lost, the same command goes on"


def require_optuna() -> None:
    if importlib.util.find_spec("optuna") is None:
        raise UserError("optuna is not installed here; install the extra sweep: pip install -e '.[sweep]'")


@contextlib.contextmanager
def explain_store(address: str) -> Iterator[None]:
    """Turn what a store's library raises in this block into `UserError`."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except BrokenPipeError:  # of what is printed
        raise
    except (StorageInternalError, SQLAlchemyError, OSError) as error:
        cause: BaseException = error
        while isinstance(cause, StorageInternalError) and cause.__cause__:
            cause = cause.__cause__
        raise UserError(f"the store {address} cannot be used ({shorten(summarise_error(cause))}); {ADVICE}") from None


def name_store(sweep: Sweep, given: str | None) -> str:
    """The address of the store: a database's URL, or the path of a journal."""
    return given or f"sqlite:///{(sweep.folder / 'study.db').absolute()}"


def open_store(address: str) -> "BaseStorage":
    """The store at `address`. Raises `UserError`, or what `explain_store` explains."""
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    if "://" not in address:
        path = Path(address).expanduser().absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(path)))
    if address.startswith("sqlite:///"):
        Path(address.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    arguments = {"connect_args": {"timeout": PATIENCE}} if address.startswith("sqlite") else {"pool_pre_ping": True}
    try:
        return RDBStorage(address, engine_kwargs=arguments)
    except ImportError as error:
        raise UserError(f"--storage {address}: {error}; install what that database needs") from None


def open_studies(sweep: Sweep, address: str) -> dict[str, "Study"]:
    """The study of each sibling, made where it is not there yet.

    Raises:
        UserError: where the store cannot be used, or its trials are of another sweep.
    """
    import optuna

    from shared.training.sweep.sampler import SharedSampler

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.MedianPruner(sweep.prune_startup, sweep.prune_warmup + 1) if sweep.prune else \
        optuna.pruners.NopPruner()
    sampler = SharedSampler(sweep.seed)
    store = open_store(address)
    wanted, found = describe_sweep(sweep), {}
    for sibling in sweep.siblings:
        study = optuna.create_study(
            storage=store, sampler=sampler, pruner=pruner, study_name=f"{sweep.name}-{sibling}", load_if_exists=True,
            direction="minimize" if sweep.direction == "min" else "maximize")
        kept = study.user_attrs.get("sweep", wanted)
        changed = sorted(key for key in wanted.keys() | kept.keys() if wanted.get(key) != kept.get(key))
        if changed:
            raise UserError(f"the sweep '{sweep.name}' in {address} began with another {', '.join(changed)}, and "
                            "trials could not be compared; give it another name, or what it began with")
        if "sweep" not in study.user_attrs:
            study.set_user_attr("sweep", wanted)
        found[sibling] = study
    sampler.studies = list(found.values())
    return found


def suggest_words(sweep: Sweep, trial: "Trial") -> dict[str, str]:
    """The values of a trial as they are written, drawn where it has none yet."""
    words = {}
    for one in sweep.space:
        if one.choices:
            value: Any = trial.suggest_categorical(one.key, one.choices)
        elif one.is_whole:
            value = trial.suggest_int(one.key, int(one.low), int(one.high), log=one.log, step=int(one.step or 1))
        else:
            value = trial.suggest_float(one.key, one.low, one.high, log=one.log, step=one.step)
        words[one.key] = format_value(value)
    return words


def list_trials(study: "Study", *states: str) -> list["FrozenTrial"]:
    """The trials of a study in `states`, such as RUNNING and COMPLETE; without any, all."""
    return [trial for trial in study.get_trials(deepcopy=False) if not states or trial.state.name in states]


def open_trial(study: "Study", number: int) -> "Trial":
    """A trial that was begun before, to go on with."""
    from optuna import Trial

    return Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)  # Optuna has no other way to it


def begin_trial(study: "Study") -> "Trial":
    """A new trial, which says where it runs."""
    trial = study.ask()
    trial.set_user_attr("host", socket.gethostname())
    return trial


def close_trial(study: "Study", trial: "Trial", state: str) -> None:
    """End a trial as PRUNED or FAIL."""
    from optuna.trial import TrialState

    study.tell(trial, state=TrialState[state])


def compute_importance(study: "Study") -> dict[str, float]:
    """How much each key explains of the variation of the trials' ranks, adding up to 1; empty for too few trials.

    Of ranks, because one training that diverged would have nearly all the variation of a loss to itself.
    """
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances
    from scipy.stats import rankdata

    trials = list_trials(study, "COMPLETE")
    values = [trial.value for trial in trials]
    if len(values) < 4 or len(set(values)) < 2:
        return {}
    ranks = dict(zip((trial.number for trial in trials), map(float, rankdata(values)), strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Not Optuna's default: of 20 trials, in which a key explained nearly all, fANOVA gave it 90 %, PED-ANOVA 76 %.
        return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0),
                                     target=lambda trial: ranks[trial.number])
