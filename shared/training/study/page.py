"""The section of docs/results.md that a study fills."""

import re
from collections.abc import Callable
from typing import Any

from shared.machine.console import Table, format_percent
from shared.training.sweep.space import format_value

COMMAND = "make study"  # whose section the page has


def format_section(study: dict[str, Any]) -> str:
    """What is between the comments: command, budget, machine, two tables and a picture, in Markdown."""
    words = study["command"]
    keys = ", ".join(f"`{key}={format_value(value)}`" for key, value in study["config"].items())
    reasons: dict[str, list[str]] = {}
    for one in study["left_out"]:
        reasons.setdefault(one["reason"], []).append(f"{one['name']} in {one['sibling'].capitalize()}")
    parts = [
        f"```bash\n{f'python -m shared.study {chr(32).join(words)}' if words else 'make study'}\n```",
        " or ".join(f"{one['train']:,} training, {one['val']:,} validation and {one['test']:,} test images"
                    for one in study["sizes"]) + f"; keys that are not the defaults: {keys}.",
        f"{'; '.join(study['devices'])}, in {' and '.join(study['precisions'])}; "
        + ", ".join(f"{name} {' and '.join(found)}" for name, found in study["versions"].items() if found)
        + f"; revision {', '.join(one[:10] for one in study['revisions']) or 'unknown'}; {study['date']}. "
        + study["note"],
        tabulate_accuracy(study).to_markdown(),
        "![Test accuracy over multiply-adds and over seconds of training, in both siblings](study.png)",
        tabulate_cost(study).to_markdown(),
        "\n".join(f"- Left out: {', '.join(names)}: {reason}" for reason, names in reasons.items())]
    return "\n\n".join(part.rstrip() for part in parts if part)


def tabulate_accuracy(study: dict[str, Any]) -> Table:
    """A row for each structure: its size, and test accuracy with its interval in each sibling."""
    def show_same(name: str, show: Callable[[float], str]) -> Callable[[list[dict]], str]:
        return lambda rows: " / ".join(dict.fromkeys("-" if row[name] is None else show(row[name]) for row in rows))
    return tabulate(study, {"parameters": show_same("parameters", "{:,}".format),
                            "multiply-adds": show_same("multiply_adds", lambda count: f"{count / 1e6:,.1f} M")},
                    {"test accuracy": lambda row: f"{format_percent(row['accuracy'])} ({100 * row['accuracy_low']:.1f} "
                                                  f"to {100 * row['accuracy_high']:.1f})"})


def tabulate_cost(study: dict[str, Any]) -> Table:
    """A row for each structure: time, speed and memory in each sibling."""
    return tabulate(study, {}, {"training, s": lambda row: f"{row['train_seconds']:.0f}",
                                "s per epoch": lambda row: f"{row['epoch_seconds']:.1f}",
                                "images/s": lambda row: f"{row['images_per_second']:,.0f}",
                                "peak GiB": lambda row: f"{row['peak_memory_gib']:.1f}"})


def tabulate(study: dict[str, Any], common: dict[str, Callable[[list[dict]], str]],
             own: dict[str, Callable[[dict], str]]) -> Table:
    """A row for each name. `common` makes cells of all rows of a name, `own` of one sibling's; a sibling that has not
    finished has dashes."""
    siblings = list(dict.fromkeys(row["sibling"] for row in study["rows"]))
    titles = [f"{sibling.capitalize()}: {title}" for sibling in siblings for title in own]
    table = Table(["structure", *common, *titles], [])
    for name in dict.fromkeys(row["name"] for row in study["rows"]):
        rows = {row["sibling"]: row for row in study["rows"] if row["name"] == name}
        table.rows.append([f"`{name}`" if re.fullmatch(r"[\w:.]+", name) else name,
                           *(show(list(rows.values())) for show in common.values()),
                           *(show(rows[sibling]) if sibling in rows else "-" for sibling in siblings
                             for show in own.values())])
    return table
