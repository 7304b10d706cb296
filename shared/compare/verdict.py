"""Whether runs are the same experiment."""

import textwrap
from typing import Any

from shared.machine.environment import changes_numbers
from shared.runs.records import FRAMEWORKS, PLACES, SavedRun, label_runs

# Keys whose value may differ within one experiment: where its files are, and how it uses the machine. The keys of the
# section `tracking` may differ too. The data set's folder may, because the data are compared by fingerprint.
INCIDENTAL = (*PLACES, "dataset.cache", "model.gradient_checkpointing", "hardware.devices", "hardware.num_nodes",
              "hardware.strategy", "hardware.steps_per_execution", "hardware.workers", "hardware.threads",
              "train.checkpoint_every_steps", "debug.profile")
# What run.json must record, and what must be equal; fingerprints only among runs of one seed, since they depend on it.
FINGERPRINTS = ("fingerprints.data", "fingerprints.split", "fingerprints.test", "fingerprints.order",
                "fingerprints.initial_weights")
RECORDED = (*FINGERPRINTS, "precision", "tf32", "device", "global_batch", "steps_per_epoch", "epochs", "sizes.train",
            "sizes.val", "sizes.test", "classes")
EVALUATION = "predictions (index and label)"
PIECES = "schedule"


def find_differences(runs: list[SavedRun], up_to_seed: bool = False) -> list[str]:
    """What makes `runs` different experiments, as lines `key: lightning=.. keras=..`; empty for the same experiment.

    This compares the config, without keys that do not change the experiment; what run.json records of data, split,
    order, initial weights, precision, device, batch, steps, evaluation set and environment variables; whether the
    schedule changed in mid-run; and which images the predictions of finished runs are for. What run.json does not
    record counts as a difference, since it may differ.

    With `up_to_seed` the runs may differ in their seed, and fingerprints are compared among runs of the same seed.
    """
    if len(runs) < 2:
        return []
    names = label_runs(runs)
    keys = dict.fromkeys(key for run in runs for key in run.config
                         if key not in INCIDENTAL and not key.startswith("tracking."))
    if up_to_seed:
        keys.pop("seed", None)
    found = [describe_difference(key, runs, names, [run.config.get(key) for run in runs]) for key in keys]
    seeds = sorted({run.seed for run in runs}) if up_to_seed else [None]
    # Where BatchNorm normalises over the images of one device, the number of devices changes the result.
    per_device = all(run.config.get("hardware.sync_batchnorm") is False for run in runs)
    variables = sorted({key for run in runs for key in run.record if changes_numbers(key.removeprefix("environment."))})
    found += [describe_difference(key, runs, names, [run.record.get(key) for run in runs]) for key in variables]
    for key in (*RECORDED, *(("devices",) if per_device else ())):
        values = [run.record.get(key) for run in runs]
        by_seed = key in FINGERPRINTS and up_to_seed
        for seed in seeds if by_seed else [None]:
            chosen = [i for i, run in enumerate(runs) if seed is None or run.seed == seed]
            found.append(describe_difference(
                f"seed {seed}: {key}" if by_seed else key, [runs[i] for i in chosen], [names[i] for i in chosen],
                [values[i] for i in chosen], required=True))
    found.append(describe_difference(PIECES, runs, names, [describe_pieces(run) for run in runs]))
    for seed in seeds:
        chosen = [i for i, run in enumerate(runs) if run.finished and seed in (None, run.seed)]
        found.append(describe_difference(
            EVALUATION if seed is None else f"seed {seed}: {EVALUATION}", [runs[i] for i in chosen],
            [names[i] for i in chosen],
            [runs[i].predictions and runs[i].predictions.fingerprint() for i in chosen], required=True))
    return [line for line in found if line]


def describe_pieces(run: SavedRun) -> str:
    """What schedule a run had from which epoch on. Where it was resumed with more or fewer epochs and had the learning
    rates of a run that never was, as with a constant one, it is of one piece like that one."""
    segments = run.record.get("segments") or []
    if not any("jump" in segment for segment in segments):
        return "in one piece"
    return ", ".join((f"from epoch {segment['from_epoch']:g} on " if segment["from_epoch"] else "")
                     + f"{segment['name']} to epoch {segment['epochs']}" for segment in segments)


def describe_difference(key: str, runs: list[SavedRun], names: list[str], values: list[Any],
                        required: bool = False) -> str:
    """The line that says how the `values` of `key` differ between `runs`; empty where they are equal.

    Where they are equal because `required` values are missing, the line says so.
    """
    if all(value == values[0] for value in values):
        missing = required and values and values[0] is None
        return f"{key}: not recorded, so nobody can say that it agrees" if missing else ""
    texts = [format_value(value) for value in values]
    by_framework = {framework: sorted({text for text, run in zip(texts, runs, strict=True)
                                       if run.framework == framework}) for framework in FRAMEWORKS}
    if all(len(own) == 1 for own in by_framework.values()):
        return f"{key}: " + " ".join(f"{framework}={own[0]}" for framework, own in by_framework.items())
    holders: dict[str, list[str]] = {}
    for text, name in zip(texts, names, strict=True):
        holders.setdefault(text, []).append(name)
    if all(f" {key}=" in name for name in names):  # the names say it
        return f"{key}: {'; '.join(holders)}"
    return f"{key}: " + "; ".join(f"{text} in {', '.join(owners) if len(owners) < 4 else f'{len(owners)} runs'}"
                                  for text, owners in holders.items())


def format_value(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{len(value)}: {textwrap.shorten(', '.join(map(str, value)), 60, placeholder=' ...')}]"
    return str(value) or "''"
