"""Weights & Biases and TensorBoard under one set of names. Neither may ever stop a training."""

import contextlib
import logging
import netrc
import os
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from shared.config import to_dict
from shared.runs import Run

# In every row, so that a dashboard can lay two runs over each other whatever each framework calls a step.
AXES = ("samples", "epoch", "time/train_s")

# Seconds that W&B's server may keep a run waiting, once at its start and once at its end.
PATIENCE = 15

# Bytes that must fit on W&B's disk before each row: more than W&B writes at a time.
ROOM = 65536


def api_key_configured() -> bool:
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


class Tracker:
    """Sends rows to W&B and TensorBoard. The first failure of either is told once; from then on it is left alone."""

    def __init__(self, run: Run):
        self.run, self.config = run, run.config
        self.wandb_run: Any = None
        self.board: Any = None
        if not run.leader:  # several processes are one run
            return
        if not self.attempt("Weights & Biases", self.start_wandb):
            self.wandb_run = None
        if not self.attempt("TensorBoard", self.start_tensorboard):
            self.board = None

    def attempt(self, name: str, action: Callable[[], None]) -> bool:
        """Whether `action` went well."""
        try:
            action()
            return True
        except Exception as error:
            print(f"{name} failed and is left out from here on: {reason(error)}; metrics.jsonl has everything",
                  file=sys.stderr, flush=True)
            return False

    def start_wandb(self) -> None:
        settings = self.config.tracking
        mode = settings.mode if settings.mode != "auto" else os.environ.get("WANDB_MODE") or "auto"
        if mode == "auto":
            mode = "online" if api_key_configured() else "offline"
        if mode == "disabled":
            return
        if mode == "online" and not api_key_configured():  # W&B would ask for it and wait
            raise RuntimeError("no API key is configured; run `wandb login`, or use tracking.mode=offline")
        check_room()
        os.environ.setdefault("WANDB_SILENT", "true")  # of its login; the settings below come too late for that
        try:
            self.init_wandb(mode)
        except Exception as error:
            stop_service()
            if mode != "online":
                raise
            self.init_wandb("offline")
            print(f"Weights & Biases cannot be reached ({reason(error)}), so nothing is sent while this run goes on; "
                  f"it is kept offline: {self.sync_command()} sends it later", file=sys.stderr, flush=True)

    def init_wandb(self, mode: str) -> None:
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
            settings=wandb.Settings(silent=True, init_timeout=PATIENCE, finish_timeout=PATIENCE,
                                    finish_timeout_raises=True))
        for handler in logging.getLogger("wandb").handlers:  # on a full disk each of its lines would be a traceback
            handler.handleError = lambda record: None
        for axis in AXES:
            self.wandb_run.define_metric(axis, hidden=True)
        self.wandb_run.define_metric("*", step_metric="samples")

    def sync_command(self) -> str:
        return f"`wandb sync {self.wandb_run.settings.sync_dir}`"

    def start_tensorboard(self) -> None:
        if not self.config.tracking.tensorboard:
            return
        # Without this marker TensorBoard's writer imports TensorFlow wherever it is installed, also beside PyTorch.
        sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("tensorboard.compat.notf"))
        from tensorboard.summary import Writer

        self.board = Writer(str(self.run.folder / "tensorboard"))

    def log(self, row: dict[str, float]) -> None:
        if self.wandb_run and not self.attempt("Weights & Biases", lambda: self.log_wandb(row)):
            self.wandb_run = None
            stop_service()
        if self.board and not self.attempt("TensorBoard", lambda: self.write_board(row)):
            self.board = None

    def log_wandb(self, row: dict[str, float]) -> None:
        check_room()
        self.wandb_run.log(row)

    def write_board(self, row: dict[str, float]) -> None:
        for name, value in row.items():
            if name not in AXES:
                self.board.add_scalar(name, value, row["samples"])
        self.board.flush()

    def finish(self, result: dict[str, Any] | None, status: int) -> None:
        """Close both; `result` goes to W&B's summary, `status` 0 marks the run as finished, 1 as failed."""
        if self.wandb_run:
            def close() -> None:
                self.wandb_run.summary.update(result or {})
                try:
                    self.wandb_run.finish(exit_code=status)
                except TimeoutError:
                    raise RuntimeError(f"not everything was sent within {PATIENCE:g} s, {self.sync_command()} sends "
                                       "the rest") from None
            if not self.attempt("Weights & Biases", close):
                stop_service()
        if self.board:
            self.attempt("TensorBoard", self.board.close)
        self.wandb_run = self.board = None


def reason(error: Exception) -> str:
    """An error's first line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def check_room() -> None:
    """Raise `OSError` where W&B's folder takes no more: W&B itself would go elsewhere or lose rows, and not say so."""
    folder = Path(os.environ.get("WANDB_DIR") or ".").expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(ROOM))
    except OSError as error:
        raise OSError(f"nothing can be written in {folder} ({error.strerror})") from None


def stop_service() -> None:
    """End W&B's own process after a failure; otherwise W&B tries that when Python ends, and prints how it fails."""
    with contextlib.suppress(Exception):
        import wandb

        wandb.teardown()
