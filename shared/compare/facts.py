"""The table of a comparison, with scores, speed and memory of each run, and notes for its reader."""

from collections.abc import Callable
from dataclasses import dataclass

from shared.compare.verdict import describe_difference
from shared.machine.console import Table, format_percent, format_points
from shared.machine.environment import is_of_speed
from shared.machine.interpreters import list_siblings
from shared.runs.records import FRAMEWORKS, SavedRun, is_number, label_runs


@dataclass(frozen=True)
class Fact:
    """A number that the table shows of each run.

    `title` names it where it is a row, `short` where it is a column; `name` is its name in result.json; `show` formats
    it. Two values are compared by their difference if they are shares (`is_share`), otherwise by their ratio.
    """
    title: str
    short: str
    name: str
    show: Callable[[float], str]
    is_share: bool = False


FACTS = (
    Fact("test accuracy", "test acc", "test/accuracy", format_percent, is_share=True),
    Fact("test loss", "test loss", "test/loss", "{:.4f}".format),
    Fact("validation accuracy of the best epoch", "val acc", "val/accuracy", format_percent, is_share=True),
    Fact("first epoch, seconds", "1st ep s", "perf/first_epoch_seconds", "{:,.2f}".format),
    Fact("steady epoch, seconds", "epoch s", "perf/epoch_seconds", "{:,.2f}".format),
    Fact("images per second", "images/s", "perf/images_per_second", "{:,.0f}".format),
    Fact("peak memory, GiB", "GiB", "perf/peak_memory_gib", "{:.2f}".format),
)
# Those of `train.metrics`. Every other metric is shown as a plain number, under its own name.
OFFERED_METRICS = (
    Fact("test top-5 accuracy", "test top5", "test/top5", format_percent, is_share=True),
    Fact("test macro F1", "test F1", "test/macro_f1", format_percent, is_share=True),
)


def list_facts(runs: list[SavedRun]) -> list[Fact]:
    """FACTS, with further test metrics of the runs inserted after the test loss."""
    known = {fact.name: fact for fact in (*FACTS, *OFFERED_METRICS)}
    names = dict.fromkeys(name for run in runs for name in run.result or {} if name.startswith("test/"))
    further = [known.get(name) or Fact(name.replace("/", " "), name.replace("/", " "), name, "{:.4f}".format)
               for name in names if name not in {fact.name for fact in FACTS}]
    return [*FACTS[:2], *further, *FACTS[2:]]


def show_parameters(run: SavedRun) -> str:
    """The number of the model's parameters, or a dash."""
    count = run.record.get("parameters")
    return f"{count:,}" if is_number(count) else "-"


def show_precision(run: SavedRun) -> str:
    name = run.record.get("precision")
    return "-" if name is None else f"{name}, TF32" if run.record.get("tf32") else str(name)


def show_device(run: SavedRun) -> str:
    return str(run.record.get("device") or "-")


def tabulate_facts(runs: list[SavedRun]) -> list[Table | str]:
    """A table with up to three runs as columns, and a column that compares them if they are two; more runs are rows,
    and sentences tell what does not fit into the table."""
    table = tabulate_values(runs, list_facts(runs))
    if len(runs) > 3:
        return [table, *describe_machines(runs)]
    for title, show in (("parameters", show_parameters), ("device", show_device), ("precision", show_precision)):
        cells = [show(run) for run in runs]
        table.rows.append([title, *cells, *(["-" if "-" in cells else "same" if cells[0] == cells[1] else "differs"]
                                            if len(runs) == 2 else [])])
    return [table]


def describe_machines(runs: list[SavedRun]) -> list[str]:
    """Sentences on the number of parameters, device and precision, and which runs have which where they differ."""
    names = label_runs(runs)
    shown = {title: [show(run) for run in runs] for title, show in (
        ("Parameters", show_parameters), ("Device", show_device), ("Precision", show_precision))}
    return [describe_difference(title, runs, names, cells) or f"{title}: {cells[0]}" for title, cells in shown.items()]


def tabulate_values(runs: list[SavedRun], facts: list[Fact]) -> Table:
    """The `facts` of up to three runs, which are columns then, with one that compares them if they are two; more runs
    are rows."""
    names = label_runs(runs)
    if len(runs) > 3:
        rows = [[name, *("-" if (value := run.get_score(fact.name)) is None else fact.show(value) for fact in facts)]
                for name, run in zip(names, runs, strict=True)]
        return Table(["run", *(fact.short for fact in facts)], rows)
    pair, rows = len(runs) == 2, []
    for fact in facts:
        values = [run.get_score(fact.name) for run in runs]
        row = [fact.title, *("-" if value is None else fact.show(value) for value in values)]
        rows.append([*row, format_change(fact, *values)] if pair else row)
    ratio = f"{names[1]} ÷ {names[0]}" if set(names) == set(FRAMEWORKS) else "second ÷ first"
    return Table(["", *names, *([ratio] if pair else [])], rows)


def format_change(fact: Fact, first: float | None, second: float | None) -> str:
    """How `second` compares with `first`: a difference or a ratio."""
    if first is None or second is None:
        return "-"
    if fact.is_share:
        return format_points(second - first)
    return f"{second / first:.3f}" if first else "-"


def list_notes(runs: list[SavedRun]) -> list[str]:
    """Sentences that a reader of the table has to know."""
    notes = [f"{name} is unfinished: its curves end early and it has no scores."
            for name, run in zip(label_runs(runs), runs, strict=True) if not run.finished]
    revisions = {run.record.get("git.revision") for run in runs}
    if len(revisions) > 1:
        notes.append("The runs were made by different revisions of the code: "
                     + ", ".join(sorted(str(revision or "unknown")[:10] for revision in revisions)) + ".")
    counts = [run.record.get("devices", 1) for run in runs]
    if difference := describe_difference("devices", runs, label_runs(runs), counts):
        notes.append(f"Speed and memory are of different numbers of devices ({difference.removeprefix('devices: ')}).")
    variables = sorted({key for run in runs for key in run.record if is_of_speed(key.removeprefix("environment."))})
    for key in ("threads", *variables):
        if difference := describe_difference(key, runs, label_runs(runs), [run.record.get(key) for run in runs]):
            notes.append(f"Speed is of different settings ({difference}).")
    for framework in list_siblings():
        if not any(run.framework == framework for run in runs):
            notes.append(f"There is no run of {framework} here; train one and compare again.")
    return notes
