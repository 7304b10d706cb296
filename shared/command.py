"""What every command of the repository does alike: read the config first, then work, then fail in one line."""

import sys
from collections.abc import Callable
from pathlib import Path

from shared.config import Config, parse
from shared.errors import StoppedError, UserError, user_message
from shared.interpreters import not_installed


def run(work: Callable[[Config], object], command: str, purpose: str) -> None:
    """Parse the command line, call `work`, and turn an error of the user's into one line and exit status 2."""
    def start() -> None:
        config = parse(sys.argv[1:], command, purpose)
        if config.init_from and config.resume in ("none", "auto"):  # what a run began with may be gone
            require(config.init_from)
        work(config)
    report_errors(start)


def run_on(work: Callable[[Config, str], object], command: str, purpose: str) -> None:
    """The same for a command whose first word is a run folder, whose config it takes, or a weight file."""
    def start() -> None:
        words = sys.argv[1:]
        if not words or words[0].startswith("-") or "=" in words[0]:
            parse(["--help"] if words[:1] in (["--help"], ["-h"]) else [], f"{command} RUN", purpose)
            raise UserError(f"name a run folder or a .safetensors file first: {command} runs/quickstart/...")
        source, rest = words[0], words[1:]
        kept = Path(source).expanduser() / "config.yaml"
        if kept.is_file() and not any("=" not in word and not word.startswith("-") for word in rest):
            rest = [str(kept), *rest]
        config = parse(rest, command, purpose)
        require(source)
        work(config, source)
    report_errors(start)


def require(weights: str) -> None:
    """Raise `UserError` where the run folder or weight file is not there."""
    from shared.weights import weight_file

    weight_file(weights)


def report_errors(work: Callable[[], object]) -> None:
    try:
        work()
    except StoppedError as stopped:
        if str(stopped):  # of several processes one speaks
            print(f"\n{stopped}", file=sys.stderr)
        sys.exit(128 + stopped.signal)  # as a shell counts a process that the signal ended
    except (KeyboardInterrupt, SystemExit) as error:
        # Lightning answers Ctrl-C itself and leaves with status 1.
        if not (isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt)):
            raise
        print("\nstopped; resume=auto goes on from the last checkpoint, if there is one", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        known = not_installed(error) if isinstance(error, ModuleNotFoundError) else None
        line = user_message(known or error)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(2)
