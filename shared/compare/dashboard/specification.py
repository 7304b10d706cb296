"""A dashboard's specification: a workspace of W&B for its curves, and a report with the comparison's tables.

Both are made without a login. A set of runs that names no project is of the project that the dashboard is saved in;
one that did would be looked up at W&B's server already when it is written down.
"""

import unicodedata
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws
from wandb_workspaces import expr

from shared.compare.dashboard.experiments import Experiment
from shared.compare.dashboard.panels import SETS, draw_answers, draw_curves, draw_scores, draw_settings, list_curves
from shared.compare.page import format_heading, list_blocks, list_verdict
from shared.compare.web.series import AXES
from shared.machine.colours import COLOURS

TITLE = "Lightning and Keras side by side"


def build_workspace(experiments: list[Experiment], entity: str, project: str) -> ws.Workspace:
    """A workspace of the experiments' runs, grouped by experiment and then by sibling, in the siblings' colours."""
    groups = [experiment.group for experiment in experiments]
    curves = list_curves(experiments)
    sections = [ws.Section(f"{title} over {AXES[axis]}", draw_curves(names, axis), is_open=axis == SETS[0],
                           panel_settings=ws.SectionPanelSettings(x_axis=axis))
                for axis in SETS for title, names in curves.items()]
    sections.insert(len(curves), ws.Section("Test scores", draw_scores(experiments) + draw_answers(), is_open=True))
    sections.append(ws.Section("Settings", draw_settings(experiments)))
    return ws.Workspace(
        entity=entity, project=project, name=drop_symbols(f"{TITLE}: {', '.join(groups)}")[:128], sections=sections,
        settings=ws.WorkspaceSettings(x_axis=SETS[0], max_runs=100),
        runset_settings=ws.RunsetSettings(
            filters=expr.And(expr.Metric("Group").isin(list(map(escape, groups)))),
            groupby=[expr.Metric("Group"), expr.Config("framework")],
            group_colors={ws.GroupPath(group, framework): colour for group in groups
                          for framework, colour in COLOURS.items()},
            # For whoever takes the grouping away.
            run_settings={run.name: ws.RunSettings(color=COLOURS[run.framework])
                          for experiment in experiments for run in experiment.runs}))


def drop_symbols(title: str) -> str:
    """`title` as W&B takes it for a workspace: it refuses emojis, and counts every symbol as one."""
    return "".join(sign for sign in title if unicodedata.category(sign)[0] != "S")


def escape(value: str) -> str:
    """A value to compare with, as wandb-workspaces 0.4 reads it: it puts it between quotation marks as it is."""
    return value.replace("\\", "\\\\").replace("'", "\\'")


def build_report(experiments: list[Experiment], entity: str, project: str) -> wr.Report:
    """A report with a part for each experiment: what a comparison says of it, its curves and its scores."""
    blocks = [block for experiment in experiments for block in describe_experiment(experiment)]
    return wr.Report(project=project, entity=entity, title=TITLE, width="fluid", blocks=[wr.TableOfContents(), *blocks],
                     description=", ".join(experiment.group for experiment in experiments))


def describe_experiment(experiment: Experiment) -> list[Any]:
    """The blocks of a report on one experiment."""
    found = experiment.comparison
    paragraphs = [format_heading(found.runs), *list_verdict(found), *list_blocks(found)]
    runs = wr.Runset(name=experiment.group, filters=expr.And(expr.Metric("Group") == escape(experiment.group)),
                     groupby=["config.framework"],
                     run_settings={run.name: wr.RunSettings(color=COLOURS[run.framework]) for run in experiment.runs})
    colours = {wr.RunsetGroup(experiment.group, (wr.RunsetGroupKey(wr.Config("framework"), framework),)): colour
               for framework, colour in COLOURS.items()}
    panels = [panel for axis in SETS for names in list_curves([experiment]).values()
              for panel in draw_curves(names, axis)]
    panels += draw_scores([experiment]) + draw_answers() + draw_settings([experiment])
    return [wr.H2(experiment.group), *map(wr.MarkdownBlock, paragraphs),
            wr.PanelGrid(runsets=[runs], panels=panels, custom_run_colors=colours)]


def describe_dashboard(workspace: ws.Workspace, report: wr.Report) -> dict[str, Any]:
    """What W&B would be sent, as plain values: the specifications that W&B's package itself sends."""
    def dump(made: ws.Workspace | wr.Report) -> dict[str, Any]:
        model = made._to_model()  # no public method of wandb-workspaces 0.4 gives it
        return {"title": model.display_name, "project": made.project,
                "spec": model.spec.model_dump(mode="json", by_alias=True, exclude_none=True)}
    return {"workspace": dump(workspace), "report": dump(report)}
