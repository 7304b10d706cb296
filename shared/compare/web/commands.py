"""The commands that make the runs again: their configs as files, and a command for each run."""

import shlex
from typing import Any

from shared.compare.verdict import format_value
from shared.config import Config, flatten, format_yaml, to_dict
from shared.runs.records import SavedRun

LEFT_OUT = ("seed", "output_dir", "resume")  # the seed stands in the command, the rest are of the place
PACKAGES = {"lightning": ("python", "torch", "lightning"), "keras": ("python", "tensorflow", "keras")}


def list_commands(runs: list[SavedRun]) -> list[tuple[list[str], str]]:
    """For each config among the runs: sentences that a reader has to know, and the lines for a shell."""
    found: dict[str, list[SavedRun]] = {}
    for run in runs:
        found.setdefault(format_config(run), []).append(run)
    return [(describe_origin(own), write_script(config, own, f"experiment{number or ''}.yaml"))
            for number, (config, own) in enumerate(found.items())]


def format_config(run: SavedRun) -> str:
    """The run's keys that have another value than the schema's default, as a file."""
    defaults = flatten(to_dict(Config()))
    tree: dict[str, Any] = {}
    for dotted, value in run.config.items():
        if dotted in LEFT_OUT or (dotted in defaults and value == defaults[dotted]):
            continue
        *sections, name = dotted.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    return format_yaml(tree)


def write_script(config: str, runs: list[SavedRun], file: str) -> str:
    lines = [f"git checkout {revision}" for revision in dict.fromkeys(run.record.get("git.revision") for run in runs)
             if revision][:1]
    lines += [f"cat > {file} <<'END'", config.rstrip("\n"), "END"]
    for run in runs:
        variables = [f"{key.partition('.')[2]}={shlex.quote(str(value))}" for key, value in run.record.items()
                     if key.startswith("environment.")]
        lines.append(" ".join([*variables, f"python {run.framework}_project/train.py {file} seed={run.seed}"]))
    seeds = " --seeds" if len({run.seed for run in runs}) > 1 else ""
    return "\n".join([*lines, f"python -m shared.compare --html --group {shlex.quote(runs[0].group)}{seeds}"])


def describe_origin(runs: list[SavedRun]) -> list[str]:
    said = []
    for framework, packages in PACKAGES.items():
        own = [run for run in runs if run.framework == framework]
        for versions in dict.fromkeys(", ".join(f"{name} {run.record[f'versions.{name}']}" for name in packages
                                                if f"versions.{name}" in run.record) for run in own):
            if versions:
                said.append(f"{framework}: {versions}.")
    revisions = {run.record.get("git.revision") for run in runs}
    if len(revisions) > 1:
        said.append("The runs were made by several revisions: "
                    + ", ".join(sorted(format_value(revision)[:10] for revision in revisions)) + ".")
    if any(run.record.get("git.dirty") for run in runs):
        said.append("The code had changes that are in no revision, so these commands may give other numbers.")
    if any(len(run.record.get("segments") or ()) > 1 for run in runs):
        said.append("A run was resumed with another schedule or number of epochs, which these commands do not repeat.")
    return said
