"""A sweep as the files that W&B's own commands read, one for each sibling, since such a file names one program."""

from pathlib import Path
from typing import Any

import yaml

from shared.machine.files import write_whole
from shared.training.sweep.definition import Sweep, make_folder
from shared.training.sweep.space import Dimension

METHODS = {False: "uniform", True: "log_uniform_values"}


def write_wandb_files(sweep: Sweep) -> list[Path]:
    """Write wandb_SIBLING.yaml, and the config that they name, into the sweep's folder; return the paths of the former.
    """
    base, written = make_folder(sweep), []
    for sibling in sweep.siblings:
        path = sweep.folder / f"wandb_{sibling}.yaml"
        text = yaml.safe_dump(describe_for_wandb(sweep, sibling, base), sort_keys=False)
        write_whole(path, lambda file, text=text: file.write_text(text, encoding="utf-8"), apart=True)
        written.append(path)
    return written


def describe_for_wandb(sweep: Sweep, sibling: str, base: Path) -> dict[str, Any]:
    """W&B's description of the sweep. ${args_no_hyphens} passes each value as key=value, as train.py reads it."""
    found = {
        "name": f"{sweep.name}-{sibling}", "project": sweep.config.tracking.project, "method": "bayes",
        "program": f"{sibling}_project/train.py", "run_cap": sweep.trials,
        "metric": {"name": sweep.metric, "goal": f"{sweep.direction}imize"},
        "parameters": {one.key: describe_parameter(one) for one in sweep.space},
        "command": ["${env}", "${interpreter}", "${program}", str(base), f"experiment={sweep.name}_wandb",
                    "${args_no_hyphens}"]}
    if sweep.prune:
        found["early_terminate"] = {"type": "hyperband", "min_iter": sweep.prune_warmup + 1}
    return found


def describe_parameter(one: Dimension) -> dict[str, Any]:
    if one.choices:
        return {"values": list(one.choices)}
    if one.step is not None:
        return {"distribution": "q_uniform", "q": one.step, "min": one.low, "max": one.high}
    if one.is_whole and not one.log:
        return {"distribution": "int_uniform", "min": one.low, "max": one.high}
    if one.is_whole:
        return {"distribution": "q_log_uniform_values", "q": 1, "min": one.low, "max": one.high}
    return {"distribution": METHODS[one.log], "min": one.low, "max": one.high}
