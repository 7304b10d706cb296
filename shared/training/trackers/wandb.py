"""Weights & Biases: online where an API key is configured, else offline."""

import contextlib
import logging
import netrc
import os
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from shared.config import to_dict
from shared.runs.folder import RunFolder
from shared.training.trackers.axes import AXES

# Seconds that W&B's server may keep a run waiting, once at its start and once at its end.
TIMEOUT = 15

# Bytes that must fit on W&B's disk before each row: more than W&B writes at a time.
ROOM_BYTES = 65536


def has_api_key() -> bool:
    """Whether W&B has a key in the environment or in a netrc file, looked up without its login, which may prompt."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").netloc  # with its port, as W&B has it
    candidates = [os.environ["NETRC"]] if os.environ.get("NETRC") else ["~/.netrc", "~/_netrc"]
    for path in map(os.path.expanduser, candidates):
        if os.path.exists(path):
            try:
                entry = netrc.netrc(path).authenticators(host)  # login, account, password
            except (OSError, UnicodeError, netrc.NetrcParseError):
                return False
            return entry is not None and bool(entry[2])
    return False


class WeightsAndBiases:
    def __init__(self, run: RunFolder):
        self.run, self.config = run, run.config
        self.wandb_run: Any = None

    @property
    def mode(self) -> str:
        """online, offline or disabled: `tracking.mode`, else WANDB_MODE, else by whether a key is configured."""
        mode = self.config.tracking.mode
        if mode == "auto":
            mode = os.environ.get("WANDB_MODE") or "auto"
        return mode if mode != "auto" else "online" if has_api_key() else "offline"

    @property
    def wanted(self) -> bool:
        return self.mode != "disabled"

    def start(self) -> None:
        mode = self.mode
        if mode == "online" and not has_api_key():  # W&B would ask for it and wait
            raise RuntimeError("no API key is configured; run `wandb login`, or use tracking.mode=offline")
        require_room()
        os.environ.setdefault("WANDB_SILENT", "true")  # of its login; the settings below come too late for that
        try:
            self.init_run(mode)
        except Exception as error:
            self.abandon()
            if mode != "online":
                raise
            self.init_run("offline")
            print(f"Weights & Biases cannot be reached ({explain_reason(error)}), so nothing is sent while this run goes on; "
                  f"it is kept offline: {self.format_sync_command()} sends it later", file=sys.stderr, flush=True)

    def init_run(self, mode: str) -> None:
        """Start the run, `mode` online or offline."""
        import wandb

        settings = self.config.tracking
        self.wandb_run = wandb.init(
            project=settings.project, group=self.config.group, name=self.run.name, job_type="train",
            # The folder's name is unique and stays the same when the run is resumed.
            id=self.run.name, resume="allow" if mode == "online" else None, mode=mode,
            tags=[self.run.framework, *settings.tags],
            config={**to_dict(self.config), "framework": self.run.framework},
            # Without a limit of its own W&B ends a run only when everything has been sent, however long that takes.
            settings=wandb.Settings(silent=True, init_timeout=TIMEOUT, finish_timeout=TIMEOUT,
                                    finish_timeout_raises=True))
        for handler in logging.getLogger("wandb").handlers:  # on a full disk each of its lines would be a traceback
            handler.handleError = lambda record: None
        for axis in AXES:
            self.wandb_run.define_metric(axis, hidden=True)
        self.wandb_run.define_metric("*", step_metric="samples")

    def format_sync_command(self) -> str:
        return f"`wandb sync {self.wandb_run.settings.sync_dir}`"

    def log(self, row: dict[str, float]) -> None:
        require_room()
        self.wandb_run.log(row)

    def finish(self, result: dict[str, Any] | None, status: int) -> None:
        self.wandb_run.summary.update(result or {})
        try:
            self.wandb_run.finish(exit_code=status)
        except TimeoutError:
            raise RuntimeError(f"not everything was sent within {TIMEOUT:g} s, {self.format_sync_command()} sends "
                               "the rest") from None

    def abandon(self) -> None:
        """End W&B's own process after a failure; otherwise W&B tries that when Python ends, and prints how it fails."""
        with contextlib.suppress(Exception):
            import wandb

            wandb.teardown()


def explain_reason(error: Exception) -> str:
    """An error's first line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def require_room() -> None:
    """Raise `OSError` where W&B's folder takes no more: W&B itself would go elsewhere or lose rows, and not say so."""
    folder = Path(os.environ.get("WANDB_DIR") or ".").expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(ROOM_BYTES))
    except OSError as error:
        raise OSError(f"nothing can be written in {folder} ({error.strerror})") from None
