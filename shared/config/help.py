"""The text of `--help`, and the table of keys that `python -m shared.config` prints."""

from shared.config.rules import describe_limits
from shared.config.schema import Config, get_value, list_keys, name_type
from shared.config.support import TITLES
from shared.machine.console import Table


def format_help(command: str, purpose: str) -> str:
    """The text of `--help`."""
    lines = [purpose, "", f"usage: {command} [file.yaml ...] [key=value ...]", "",
             "Files are merged from left to right, then the keys. Without a file, configs/quickstart.yaml is taken;",
             "with resume=RUN_FOLDER, the config of that run. A text (str) is all that stands behind the '='.",
             "A list is written [a, b], and ${key} in a value stands for the value of that key.",
             "  --help          this text", "  --print-config  print the resolved config and stop", ""]
    defaults = Config()
    section = None
    for dotted, item in list_keys().items():
        head = dotted.rpartition(".")[0]
        if head != section:
            lines += ["", f"{head or 'run'}:"]
            section = head
        facts = item.metadata
        words = ", ".join(filter(None, (name_type(item), facts["unit"], describe_allowed(facts))))
        lines.append(f"  {dotted}={show_default(get_value(defaults, dotted))}  ({words})")
        lines.append(f"      {facts['meaning']}")
        if support := describe_support(facts):
            lines.append(f"      [{support}]")
    return "\n".join(lines)


def show_default(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else "''" if value == "" else str(value)


def describe_allowed(facts: dict) -> str:
    """Choices or bounds of a key."""
    choices = [show_default(choice) for choice in facts["choices"]] + [f"{prefix}NAME" for prefix in facts["prefixes"]]
    return " | ".join(choices) or describe_limits(facts)


def describe_support(facts: dict) -> str:
    """Which sibling alone honours a key or some of its choices; empty where both honour all."""
    said = [f"{TITLES[facts['only']]} alone"] if facts["only"] else []
    said += [f"{choice}{'NAME' if choice in facts['prefixes'] else ''}: {TITLES[sibling]} alone"
             for choice, sibling in facts["only_choices"].items()]
    return "; ".join([*said, *(["changes nothing but speed"] if facts["speed"] else [])])


def tabulate_keys() -> Table:
    """Every key with its default, what it may be, and whether each sibling honours it."""
    table, defaults = Table(["key", "default", "allowed", *TITLES.values()], []), Config()
    for dotted, item in list_keys().items():
        facts = item.metadata
        support = []
        for sibling in TITLES:
            lost = [f"{choice}{'NAME' if choice in facts['prefixes'] else ''}"
                    for choice, owner in facts["only_choices"].items() if owner != sibling]
            missing = "ignored, speed only" if facts["speed"] else "refused"
            support.append(missing if facts["only"] not in ("", sibling) else
                           f"yes, but for {', '.join(lost)}" if lost else "yes")
        table.rows.append([dotted, show_default(get_value(defaults, dotted)),
                           describe_allowed(facts) or name_type(item), *support])
    return table
