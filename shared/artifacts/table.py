"""The table of a run's exported models: what each takes, how well and how fast it answers."""

from dataclasses import dataclass
from pathlib import Path

from shared.artifacts.description import Artifact, read_artifact
from shared.artifacts.timing import LARGE, Timing
from shared.errors import UserError
from shared.machine.console import Table, format_percent
from shared.machine.hardware import describe_cpu
from shared.weights.file import fingerprint_weights, read_weights


@dataclass(frozen=True)
class Row:
    """`timing` is a sentence where the model cannot be run here."""

    artifact: Artifact
    timing: Timing | str

    @property
    def accuracy(self) -> float | None:
        return self.artifact.content["checks"]["accuracy"]

    @property
    def label(self) -> str:
        given = "float input" if self.artifact.input == "float" else ""
        return " ".join(filter(None, (self.artifact.format, self.artifact.quantisation, given)))

    @property
    def run(self) -> str:
        return self.artifact.content["run"] or self.artifact.folder.parents[1].name


def find_artifacts(runs: list[Path]) -> list[Artifact]:
    """The exported models of the runs, those of a run in the order of their names.

    Raises:
        UserError: where a run has none, or one is damaged.
    """
    found = []
    for run in runs:
        folders = [path for path in sorted((run / "exports").glob("*"))
                   if path.is_dir() and not path.name.endswith((".rejected", ".unfinished", ".older"))]
        if not folders:
            raise UserError(f"{run} has no exported models; make some with lightning_project/export.py or "
                            "keras_project/export.py")
        found += map(read_artifact, folders)
    return found


def tabulate(rows: list[Row], timed: bool = True) -> Table:
    """The table, with the columns of speed where it was measured."""
    runs = {row.run for row in rows}
    speed = ["load, s", "p50, ms", "p95, ms", f"images/s at {LARGE}"] if timed else []
    table = Table(["format", "made by", *(["run"] if len(runs) > 1 else []), "MB", "accuracy", "Δ logits", "of",
                   "equal answers", *speed], [])
    for row in rows:
        checks, timing = row.artifact.content["checks"], row.timing
        measured = [f"{timing.load:.1f}", f"{1e3 * timing.p50:.2f}", f"{1e3 * timing.p95:.2f}",
                    f"{timing.images_per_second:,.0f}"] if isinstance(timing, Timing) else ["-"] * len(speed)
        table.rows.append([
            row.label, row.artifact.maker, *([row.run] if len(runs) > 1 else []),
            f"{row.artifact.size / 1e6:.1f}", "-" if row.accuracy is None else format_percent(row.accuracy),
            f"{checks['delta_logits']:.1e}", f"{checks['logits_range']:.3g}",
            f"{checks['equal_answers']:,}/{checks['images']:,}", *measured])
    return table


def write_notes(rows: list[Row]) -> list[str]:
    """What has to be known to read the table."""
    notes = [describe_checks(rows),
             f"Load (process, runtime, model, first answer), latency of one image and images per second in batches of "
             f"{LARGE}: {describe_cpu()}, one thread, each model in a process of its own, in turns."]
    notes += [f"{row.artifact.name}: {row.timing}." for row in rows if isinstance(row.timing, str)]
    outdated = list_outdated([row.artifact for row in rows])
    return notes + [f"{artifact.folder} was made of other weights than {artifact.weights.name} has now; export it "
                    "again." for artifact in outdated]


def describe_checks(rows: list[Row]) -> str:
    """What the columns of the checks mean, and which images they were made with."""
    sources = " and ".join(dict.fromkeys(row.artifact.content["checks"]["source"] for row in rows))
    return ("Accuracy, Δ logits (largest difference to the trained model's in fp32, of their range) and equal "
            f"answers: {sources}.")


def list_outdated(artifacts: list[Artifact]) -> list[Artifact]:
    """Those whose weights are others now. Where a weight file is gone, it has not changed."""
    now = {file: fingerprint_weights(read_weights(file)) for file in {artifact.weights for artifact in artifacts}
           if file.is_file()}
    return [artifact for artifact in artifacts
            if now.get(artifact.weights, artifact.content["weights"]) != artifact.content["weights"]]


def write_title(rows: list[Row]) -> str:
    models = dict.fromkeys(f"{row.artifact.content['model']} on {row.artifact.content['dataset']}" for row in rows)
    return f"{' and '.join(models)}, exported"
