"""What every command of the repository does alike: read the config first, then work, then fail in one line."""

import sys
from collections.abc import Callable
from pathlib import Path

from shared.config import Config, parse_config, require_support
from shared.errors import StoppedError, UserError, extract_user_message
from shared.machine.console import say
from shared.machine.files import find_weight_file
from shared.machine.interpreters import explain_missing_package


def run_command(work: Callable[[Config], object], sibling: str, file: str, purpose: str) -> None:
    """Parse the command line of a sibling's entry point, call `work`, and turn an error of the user's into one line and
    exit status 2."""
    def start() -> None:
        config = parse_config(sys.argv[1:], f"python {sibling}_project/{file}", purpose)
        say_remarks(config, sibling)
        if config.init_from and config.resume in ("none", "auto"):  # what a run began with may be gone
            find_weight_file(config.init_from)
        work(config)
    report_errors(start)


def run_command_on(work: Callable[[Config, str], object], sibling: str, file: str, purpose: str) -> None:
    """The same for a command whose first word is a run folder, whose config it takes, or a weight file."""
    def start() -> None:
        words, command = sys.argv[1:], f"python {sibling}_project/{file}"
        if not words or words[0].startswith("-") or "=" in words[0]:
            parse_config(["--help"] if words[:1] in (["--help"], ["-h"]) else [], f"{command} RUN", purpose)
            raise UserError(f"name a run folder or a .safetensors file first: {command} runs/quickstart/...")
        source, rest = words[0], words[1:]
        kept = Path(source).expanduser() / "config.yaml"
        if kept.is_file() and not any("=" not in word and not word.startswith("-") for word in rest):
            rest = [str(kept), *rest]
        config = parse_config(rest, command, purpose)
        say_remarks(config, sibling)
        find_weight_file(source)
        work(config, source)
    report_errors(start)


def say_remarks(config: Config, sibling: str) -> None:
    for remark in require_support(config, sibling):
        say(remark)


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
        known = explain_missing_package(error) if isinstance(error, ModuleNotFoundError) else None
        line = extract_user_message(known or error)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(2)
