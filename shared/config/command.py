"""What the siblings' commands do alike: read the config first, then work, then fail in one line."""

import os
import sys
from collections.abc import Callable

from shared.config import Config, parse_config, require_support
from shared.config.reading import is_path
from shared.errors import UserError
from shared.machine.console import say
from shared.machine.ending import report_errors
from shared.machine.files import find_weight_file


def run_command(work: Callable[[Config], object], sibling: str, file: str, purpose: str) -> None:
    """Parse the command line of a sibling's entry point, call `work`, and turn an error of the user's into one line and
    exit status 2."""
    def start() -> None:
        config = parse_config(sys.argv[1:], f"python {sibling}_project/{file}", purpose)
        say_remarks(config, sibling)
        if config.init_from and config.resume in ("none", "auto"):  # what a run began with may be gone
            find_weight_file(config.init_from)
        work(config)
    report_errors(start, advice="resume=auto goes on from the last checkpoint, if there is one")


def run_command_on(work: Callable[[Config, str], object], sibling: str, file: str, purpose: str) -> None:
    """The same for a command whose first word is a run folder, whose config it takes, or a weight file."""
    def start() -> None:
        words, command = sys.argv[1:], f"python {sibling}_project/{file}"
        if not words or words[0].startswith("-") or \
                ("=" in words[0] and not os.path.exists(os.path.expanduser(words[0]))):
            parse_config(["--help"] if words[:1] in (["--help"], ["-h"]) else [], f"{command} RUN", purpose)
            raise UserError(f"name a run folder or a .safetensors file first: {command} runs/quickstart/...")
        source, rest = words[0], words[1:]
        kept = os.path.join(os.path.expanduser(source), "config.yaml")
        if os.path.isfile(kept) and not any(is_path(word) for word in rest if not word.startswith("-")):
            rest = [kept, *rest]
        config = parse_config(rest, command, purpose)
        say_remarks(config, sibling)
        find_weight_file(source)
        work(config, source)
    report_errors(start)


def say_remarks(config: Config, sibling: str) -> None:
    for remark in require_support(config, sibling):
        say(remark)
