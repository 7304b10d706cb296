"""Saving a dashboard at W&B, which takes an API key and the network."""

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from shared.errors import UserError
from shared.training.trackers.wandb import TIMEOUT, end_service, explain_reason, find_wished_mode, has_api_key


def explain_offline() -> str:
    """Why a dashboard cannot be saved, and what to do; empty where it can."""
    mode = find_wished_mode()
    if mode in ("offline", "disabled"):
        return f"W&B is {mode} here; set WANDB_MODE=online and run this command again to save it"
    if has_api_key():
        return ""
    return "no API key of W&B is configured; run `wandb login` and this command again to save it"


def find_entity() -> str:
    """The user or team of W&B under whose name the runs are.

    Raises:
        UserError: where W&B cannot be reached, refuses the key, or knows no default for it.
    """
    import wandb

    try:
        entity = wandb.Api(timeout=TIMEOUT).default_entity
    except Exception as error:
        raise explain_failure("your account", error) from None
    if not entity:
        raise UserError("W&B knows no user or team for this API key; name one with --entity")
    return entity


def save_dashboard(report: wr.Report, workspace: ws.Workspace) -> dict[str, str]:
    """Save both, and return their addresses. The report comes first, because it makes the project where it is missing.

    Raises:
        UserError: where W&B cannot be reached, or refuses one.
    """
    addresses = {}
    for name, made in (("report", report), ("workspace", workspace)):
        try:
            made.save()
            addresses[name] = made.url
        except Exception as error:
            saved = "".join(f"; the {kind} is saved: {address}" for kind, address in addresses.items())
            raise explain_failure(f"the {name}", error, saved) from None
    return addresses


def explain_failure(what: str, error: Exception, saved: str = "") -> UserError:
    """The error for a request that failed. W&B's own process is ended, since it would try again for minutes."""
    end_service()
    return UserError(f"W&B failed with {what} ({explain_reason(error)}){saved}; the specification is written, run this "
                     "command again to save it")
