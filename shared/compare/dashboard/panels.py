"""The panels of a dashboard: which metrics, over which axis, under which heading."""

import wandb_workspaces.reports.v2 as wr

from shared.compare.dashboard.experiments import Experiment
from shared.compare.web.series import AXES, TITLES
from shared.runs.records import list_varied_keys

SECTIONS = {
    "Loss": ("val/loss", "train/loss", "train/loss_step"),
    "Accuracy": ("val/accuracy", "train/accuracy"),
    "Learning rate": ("lr",),
    "Speed": ("perf/images_per_second", "perf/epoch_seconds"),
    "Memory": ("perf/peak_memory_gib",),
}
FURTHER = "Further metrics"
# Two sets of sections. W&B's own step counts rows and not images, and is no axis for runs of two frameworks.
SETS = ("samples", "time/train_s")
# What W&B has of every run beside result.json, see shared/scores.
TEST_SCORES = ("test/accuracy", "test/loss", "test/macro_f1", "test/log_loss", "test/brier", "test/calibration_error")
PICTURES = ("test/confusion", "test/reliability")
PREDICTIONS = "test/predictions"
MOST_KEYS = 8  # of the config, in the panel of parallel coordinates


def list_curves(experiments: list[Experiment]) -> dict[str, tuple[str, ...]]:
    """The metrics of each section. Those that `train.metrics` or code of one's own has added are in a section more."""
    known = {name for names in SECTIONS.values() for name in names}
    logged = dict.fromkeys(name for experiment in experiments for run in experiment.runs for row in run.history
                           for name in row if name not in AXES)
    further = tuple(name for name in logged if name not in known)
    return SECTIONS | ({FURTHER: further} if further else {})


def draw_curves(names: tuple[str, ...], axis: str) -> list[wr.LinePlot]:
    """A panel for each metric, over `axis`."""
    return [wr.LinePlot(title=f"{name}: {title}" if (title := TITLES.get(name.rpartition("/")[2])) else name, x=axis,
                        y=[name], title_x=AXES[axis]) for name in names]


def draw_scores(experiments: list[Experiment]) -> list[wr.BarPlot]:
    """A panel for each score of the test images."""
    own = (name for experiment in experiments for run in experiment.runs for name in run.result or {}
           if name.startswith("test/"))
    return [wr.BarPlot(title=name, metrics=[name]) for name in dict.fromkeys((*TEST_SCORES, *own))]


def draw_answers() -> list[wr.MediaBrowser | wr.WeavePanelSummaryTable]:
    """The confusion and the reliability of each run, and the table of a sample of its test images."""
    return [*(wr.MediaBrowser(title=name, media_keys=[name]) for name in PICTURES),
            wr.WeavePanelSummaryTable(table_name=PREDICTIONS, layout=wr.Layout(w=24, h=12))]


def draw_settings(experiments: list[Experiment]) -> list[wr.ParallelCoordinatesPlot]:
    """Parallel coordinates: the sibling, the keys in which the runs differ, what became of it."""
    keys = list_varied_keys([run for experiment in experiments for run in experiment.runs])[:MOST_KEYS]
    names = [wr.Config("framework"), *map(wr.Config, keys), wr.SummaryMetric("perf/images_per_second"),
             wr.SummaryMetric("test/accuracy")]
    return [wr.ParallelCoordinatesPlot(columns=[wr.ParallelCoordinatesPlotColumn(name) for name in names],
                                       layout=wr.Layout(w=24, h=8))]
