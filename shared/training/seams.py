"""Errors for losses and metrics that users add, so that a mistake is told before time is spent on training."""

from collections.abc import Iterable

from shared.config import Config, suggest
from shared.errors import UserError


def validate_metric_names(names: Iterable[str], file: str) -> None:
    """Raise `UserError` where two metrics have the same of `names`, or where one is not allowed.

    `file` is the file with the function `build_metrics`; the message names it.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen or name == "loss":
            other = "the loss has it" if name == "loss" else "two metrics have it"
            raise UserError(f"build_metrics in {file} uses the name '{name}', and {other}; give each its own name")
        if not name or "/" in name or any(map(str.isspace, name)) or name.startswith("val_"):
            raise UserError(f"build_metrics in {file} uses the name '{name}'; a name has no '/', no spaces and no val_ "
                            "at its start, since train/ and val/ are put before it")
        seen.add(name)


def explain_bad_loss(reason: str, classes: int, file: str) -> UserError:
    """The error for a loss that cannot be computed from logits and targets alone."""
    return UserError(f"build_loss in {file} does not work on logits (2, {classes}) and targets (2, {classes}) that sum "
                     f"to 1: {' '.join(reason.split())[:200]}; that is all that a loss can be computed from here")


def explain_bad_metric(name: str, reason: str, file: str) -> UserError:
    """The error for a metric whose value is not a single number."""
    return UserError(f"the metric '{name}' of build_metrics in {file} is not one number: "
                     f"{' '.join(reason.split())[:200]}")


def explain_missing_monitor(config: Config, logged: Iterable[str]) -> UserError:
    """The error for a `train.monitor` that is not among the `logged` metrics."""
    names = sorted(logged)
    hint = suggest(config.train.monitor, names)
    return UserError(f"train.monitor={config.train.monitor} is logged by nobody; there are {', '.join(names)}"
                     + (f"; {hint}" if hint.startswith("did") else "; set train.monitor to one of these"))
