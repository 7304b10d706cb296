"""Make a dashboard of W&B for the runs of both siblings: a workspace of their curves, a report with their comparison.

    python -m shared.dashboard                      of every experiment in runs/
    python -m shared.dashboard --group NAME         of one

With an API key it is saved at W&B; in any case its specification is written as dashboard.json.
"""

import argparse
import importlib.util
import os
from pathlib import Path

from shared.errors import UserError
from shared.machine.arguments import Parser
from shared.machine.files import expand_home, write_json

ADVICE = "choose another folder with --out"


def parse_arguments() -> argparse.Namespace:
    parser = Parser(prog="python -m shared.dashboard", allow_abbrev=False,
                    formatter_class=argparse.RawTextHelpFormatter,
                    description="Make a workspace and a report of W&B for the runs of both siblings.")
    parser.add_argument("--group", metavar="NAME", help="the experiment to show; default: all")
    parser.add_argument("--output-dir", metavar="FOLDER", type=Path, default=Path("runs"),
                        help="where run folders are made; default: runs")
    parser.add_argument("--project", metavar="NAME", help="the project of W&B; default: tracking.project of the runs")
    parser.add_argument("--entity", metavar="NAME",
                        help="the user or team of W&B; default: WANDB_ENTITY, else that of the API key")
    parser.add_argument("--out", metavar="FOLDER", type=Path,
                        help="where dashboard.json goes; default: the group's folder, or that of all runs")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise UserError("wandb-workspaces is not installed here; pip install 'wandb-workspaces>=0.4' installs it, and "
                        "so does make setup with dashboard among its EXTRAS")
    # Here, so that --help need not wait for them.
    from shared.compare.dashboard.experiments import find_project, read_experiments
    from shared.compare.dashboard.saving import explain_offline, find_entity, save_dashboard
    from shared.compare.dashboard.specification import build_report, build_workspace, describe_dashboard

    os.environ.setdefault("WANDB_SILENT", "true")  # the addresses are printed below
    output_dir = expand_home(options.output_dir)
    experiments = read_experiments(output_dir, options.group)
    project = options.project or find_project(experiments)
    file = expand_home(options.out or output_dir / (options.group or "")) / "dashboard.json"
    content = describe_dashboard(build_workspace(experiments, "", project), build_report(experiments, "", project))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{file.parent} cannot be made: {error.strerror}; {ADVICE}") from None
    write_json(file, content, advice=ADVICE)
    print(f"specification: {file} ({', '.join(experiment.group for experiment in experiments)})", flush=True)
    if reason := explain_offline():
        print(f"not saved:     {reason}")
        return
    entity = options.entity or os.environ.get("WANDB_ENTITY") or find_entity()
    for name, address in save_dashboard(build_report(experiments, entity, project),
                                        build_workspace(experiments, entity, project)).items():
        print(f"{name + ':':14} {address}")
