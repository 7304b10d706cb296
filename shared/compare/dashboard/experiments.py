"""The experiments that a dashboard shows, each with its runs and what a comparison says of them."""

from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from shared.compare.page import Comparison
from shared.compare.report import examine_runs
from shared.errors import UserError
from shared.machine.console import say
from shared.machine.interpreters import list_siblings
from shared.runs.records import SavedRun, find_finished_runs, read_run, select_newest_runs


@dataclass(frozen=True)
class Experiment:
    """The finished runs of a group. `comparison` is of the newest of each sibling and seed."""

    group: str
    runs: list[SavedRun]
    comparison: Comparison


def read_experiments(output_dir: Path, group: str | None = None) -> list[Experiment]:
    """The experiments in `output_dir`, or the one that is called `group`. Of unfinished runs a line says that they are
    passed over.

    Raises:
        UserError: where there is no finished run, or a file of one is damaged.
    """
    groups = [group] if group is not None else sorted(
        {path.parent.parent.name for path in output_dir.glob("*/*/result.json")}) or [None]
    experiments, failed = [], None
    for name in tqdm(groups, "experiments", leave=False, disable=None):
        try:
            found = find_finished_runs(output_dir, name, list_siblings())
        except UserError as error:  # of several groups, one may be of a sibling that was deleted here
            failed = error
            continue
        tell_unfinished(output_dir / name)
        newest = select_newest_runs(found, by=lambda run: (run.framework, run.seed))
        seeds = len({run.seed for run in newest}) > 1
        experiments.append(Experiment(name, [read_run(run.folder) for run in found],
                                      examine_runs([run.folder for run in newest], seeds)))
    if not experiments:
        raise failed
    return experiments


def tell_unfinished(group: Path) -> None:
    for folder in sorted(path.parent for path in group.glob("*/config.yaml")):
        if not (folder / "result.json").is_file():
            say(f"passed over: {folder} has not finished; it is shown when this command is run again after its end")


def find_project(experiments: list[Experiment]) -> str:
    """The W&B project that the runs were logged to.

    Raises:
        UserError: where they were logged to several.
    """
    projects = sorted({str(run.config["tracking.project"]) for experiment in experiments for run in experiment.runs})
    if len(projects) > 1:
        raise UserError(f"the runs were logged to several projects of W&B ({', '.join(projects)}); choose one with "
                        "--project, or one experiment with --group")
    return projects[0]
