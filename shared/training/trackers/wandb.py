"""Weights & Biases: online where an API key is configured, else offline."""

import configparser
import contextlib
import logging
import netrc
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from shared.config import to_dict
from shared.machine.files import expand_home
from shared.runs.folder import RunFolder
from shared.training.examples import Example
from shared.training.trackers.axes import AXES

# Seconds for which W&B's server may keep a run waiting, at its start and again at its end.
TIMEOUT = 15

# Bytes that must be free on W&B's disk before each row: more than W&B writes at a time.
ROOM_BYTES = 65536

# Seconds for each byte of a model's file, before its sending is given up: a megabyte a second.
SECONDS_PER_BYTE = 1e-6

TRUE = ("1", "on", "t", "true", "y", "yes")
# Other names of modes: the old ones, and that for several processes which log as one, as here one does for all.
MODES = {"auto": "", "dryrun": "offline", "run": "online", "shared": "online"}


def find_wished_mode() -> str:
    """What the user has set for W&B at large: in a variable of the environment, or with `wandb offline` and `wandb
    disabled`, which write a settings file; empty where that is nothing.

    WANDB_DISABLED is no longer known to W&B itself, but to the libraries of many who have it set.
    """
    if os.environ.get("WANDB_DISABLED", "").strip().lower() in TRUE:
        return "disabled"
    mode = (os.environ.get("WANDB_MODE") or read_settings_mode()).strip().lower()
    return MODES.get(mode, mode)


def find_folder() -> Path:
    """Where W&B keeps its runs."""
    root = expand_home(os.environ.get("WANDB_DIR") or ".").absolute()
    return root / (".wandb" if (root / ".wandb").is_dir() else "wandb")


def read_settings_mode() -> str:
    """The mode in W&B's settings files, of which the folder's counts more than the user's; empty for online, which is
    W&B's default and asks for nothing."""
    users = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser()
    settings = configparser.ConfigParser(interpolation=None)
    for file in (users / "settings", find_folder() / "settings"):
        with contextlib.suppress(OSError, UnicodeError, configparser.Error):  # W&B says what is wrong with its files
            settings.read(file, encoding="utf-8")
    mode = settings.get("default", "mode", fallback="")
    return "" if mode in ("online", "run") else mode


def has_api_key() -> bool:
    """Whether W&B finds a key in the environment or in a netrc file. W&B's own login is not called: it may prompt."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    # With the port, as in the entries that W&B makes in a netrc file.
    host = urlparse(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").netloc
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
        """online, offline or disabled. `tracking.mode` decides; where it is auto, what the user has set for W&B at
        large does; where that is nothing, whether a key is configured."""
        mode = self.config.tracking.mode
        if mode == "auto":
            mode = find_wished_mode()
        return mode or ("online" if has_api_key() else "offline")

    @property
    def wanted(self) -> bool:
        return self.mode != "disabled"

    def start(self) -> None:
        mode = self.mode
        if mode == "online" and not has_api_key():  # W&B would ask for a key and wait
            raise RuntimeError("no API key is configured; run `wandb login`, or use tracking.mode=offline")
        require_room()
        os.environ.setdefault("WANDB_SILENT", "true")  # W&B's login prints before it reads the settings below
        # Where the images of a table wait until they are sent; W&B itself would leave them in the user's home.
        os.environ.setdefault("WANDB_DATA_DIR", str(find_folder()))
        try:
            self.init_run(mode)
        except Exception as error:
            self.abandon()
            if mode != "online":
                raise
            self.init_run("offline")
            print(f"Weights & Biases cannot be reached ({explain_reason(error)}), so nothing is sent while this run "
                  f"goes on; it is kept offline: {self.format_sync_command()} sends it later",
                  file=sys.stderr, flush=True)

    def init_run(self, mode: str) -> None:
        """Start W&B's run in `mode`, which is online or offline."""
        import wandb

        settings = self.config.tracking
        self.wandb_run = wandb.init(
            project=settings.project, group=self.config.group, name=self.run.name, job_type="train",
            # The name of the run folder is unique, and a resumed run keeps it. Offline, W&B notes the wish to resume in
            # its record, and `wandb sync` then goes on after the rows that the server has, not from step 0 again.
            id=self.run.name, resume="allow", mode=mode,
            tags=[self.run.framework, *settings.tags],
            config={**to_dict(self.config), "framework": self.run.framework, "git": self.run.record.get("git")},
            # Without a time limit W&B ends a run only when it has sent everything, however long that takes.
            settings=wandb.Settings(silent=True, init_timeout=TIMEOUT, finish_timeout=TIMEOUT,
                                    finish_timeout_raises=True))
        self.is_online = mode == "online"
        for handler in logging.getLogger("wandb").handlers:  # they print a traceback for each line on a full disk
            handler.handleError = lambda record: None
        for axis in AXES:
            self.wandb_run.define_metric(axis, hidden=True)
        self.wandb_run.define_metric("*", step_metric="samples")

    def format_sync_command(self) -> str:
        return f"`wandb sync {self.wandb_run.settings.sync_dir}`"

    def log(self, row: dict[str, float]) -> None:
        require_room()
        self.wandb_run.log(row)

    def finish(self, result: dict[str, Any] | None, status: int, pictures: Sequence[Path],
               collect_examples: Callable[[], list[Example]]) -> None:
        import wandb

        try:
            if pictures:
                self.log({f"test/{picture.stem}": wandb.Image(str(picture)) for picture in pictures})
            if examples := collect_examples():
                self.log({"test/predictions": wandb.Table(
                    ["image", *Example._fields[1:]],
                    [[wandb.Image(example.image), *example[1:]] for example in examples])})
            if status == 0 and self.is_online and self.config.tracking.weights:
                self.send_weights()
        finally:  # without what could not be sent too
            self.end_run(result, status)

    def send_weights(self) -> None:
        """Send the best weights as an artifact of the run's name, and wait until they have arrived.

        Offline, W&B would copy the file, which is in the run folder anyway.
        """
        import wandb

        path = self.run.best_weights
        if not path.exists():
            return
        patience = TIMEOUT + path.stat().st_size * SECONDS_PER_BYTE
        try:
            artifact = wandb.Artifact(self.run.name, type="model")
            artifact.add_file(str(path), policy="immutable", skip_cache=True)  # no copies in the user's home
            self.wandb_run.log_artifact(artifact).wait(timeout=int(patience))
        except Exception as error:
            name = f"{self.config.tracking.project}/{self.run.name}"
            raise RuntimeError(f"the weights were not sent within {patience:.0f} s ({explain_reason(error)}); "
                               f"`wandb artifact put --name {name} --type model {path}` sends them") from None

    def end_run(self, result: dict[str, Any] | None, status: int) -> None:
        self.wandb_run.summary.update(result or {})
        try:
            self.wandb_run.finish(exit_code=status)
        except TimeoutError:
            raise RuntimeError(f"not everything was sent within {TIMEOUT:g} s, {self.format_sync_command()} sends "
                               "the rest") from None

    def abandon(self) -> None:
        """End W&B's own process after a failure."""
        end_service()


def end_service() -> None:
    """End W&B's own process. Otherwise W&B tries to when Python exits, and prints that it fails, or waits.

    It does so in a thread, because W&B waits for its process without a limit, which waits for the server.
    """
    def end_process() -> None:
        with contextlib.suppress(Exception):
            import wandb

            wandb.teardown()

    ending = threading.Thread(target=end_process, daemon=True)
    ending.start()
    ending.join(TIMEOUT)


def explain_reason(error: Exception) -> str:
    """The first line of an error's message, or the name of its class where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def require_room() -> None:
    """Raise `OSError` where W&B's folder cannot be written to or its disk is full.

    W&B itself would write to another folder or lose rows, and say nothing.
    """
    folder = expand_home(os.environ.get("WANDB_DIR") or ".").absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(ROOM_BYTES))
    except OSError as error:
        raise OSError(f"nothing can be written in {folder} ({error.strerror})") from None
