"""Two runs side by side, or twenty: table, picture, and whether they are the same experiment at all.

    python -m shared.compare                        the newest finished run of each sibling
    python -m shared.compare RUN RUN ...            run folders, of either sibling, finished or not
    python -m shared.compare --seeds                all seeds of a group: is the difference more than noise?
"""

import argparse
import os
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.errors import UserError, user_message
from shared.noise import seed_report
from shared.records import FRAMEWORKS, Run, finished_runs, is_number, labels, newest, read_run
from shared.tables import WIDTH, Table, percent, points

# Keys whose value may differ within one experiment: where its files lie, who watches, how the machine is used.
# The data set's folder may differ because the data are compared by fingerprint.
INCIDENTAL = ("output_dir", "resume", "dataset.root", "model.gradient_checkpointing", "hardware.devices",
              "hardware.num_nodes", "hardware.strategy", "hardware.steps_per_execution", "hardware.workers",
              "hardware.threads", "train.checkpoint_every_steps", "debug.profile")
# What must be on record in run.json and equal. All fingerprints may follow from the seed.
FINGERPRINTS = ("fingerprints.data", "fingerprints.split", "fingerprints.test", "fingerprints.order",
                "fingerprints.initial_weights")
RECORDED = (*FINGERPRINTS, "precision", "tf32", "device", "global_batch", "steps_per_epoch", "epochs", "sizes.train",
            "sizes.val", "sizes.test", "classes")
EVALUATION = "predictions (index and label)"


@dataclass(frozen=True)
class Comparison:
    """`differences` is empty for the same experiment. `blocks` is what was found, as tables and sentences; `picture`
    and `page` are the files that were written."""
    runs: list[Run]
    differences: list[str]
    verdict: str
    blocks: list[Table | str]
    picture: Path
    page: Path


def same_experiment(runs: list[Run], up_to_seed: bool = False) -> list[str]:
    """What keeps `runs` from being the same experiment, as `key: lightning=.. keras=..`; empty where they are.

    Compared are the config without what is incidental, what run.json records of data, split, order, initial weights,
    precision, device, batch, steps and evaluation set, and which images the predictions of finished runs are for.
    Something that run.json does not record counts as a difference, for nobody can say that it agrees.

    With `up_to_seed` runs may differ in their seed; fingerprints are then compared among the runs of one seed.
    """
    if len(runs) < 2:
        return []
    names = labels(runs)
    keys = dict.fromkeys(key for run in runs for key in run.config
                         if key not in INCIDENTAL and not key.startswith("tracking."))
    if up_to_seed:
        keys.pop("seed", None)
    found = [difference(key, runs, names, [run.config.get(key) for run in runs]) for key in keys]
    seeds = sorted({run.seed for run in runs}) if up_to_seed else [None]
    # Where each device normalises its own share, their number decides how large the shares are.
    shares = all(run.config.get("hardware.sync_batchnorm") is False for run in runs)
    for key in (*RECORDED, *(("devices",) if shares else ())):
        values = [run.record.get(key) for run in runs]
        by_seed = key in FINGERPRINTS and up_to_seed
        for seed in seeds if by_seed else [None]:
            chosen = [place for place, run in enumerate(runs) if seed is None or run.seed == seed]
            found.append(difference(f"seed {seed}: {key}" if by_seed else key, [runs[place] for place in chosen],
                                    [names[place] for place in chosen], [values[place] for place in chosen],
                                    required=True))
    for seed in seeds:
        chosen = [place for place, run in enumerate(runs) if run.finished and seed in (None, run.seed)]
        found.append(difference(EVALUATION if seed is None else f"seed {seed}: {EVALUATION}",
                                [runs[place] for place in chosen], [names[place] for place in chosen],
                                [runs[place].predictions and runs[place].predictions.fingerprint()
                                 for place in chosen], required=True))
    return [line for line in found if line]


def difference(key: str, runs: list[Run], names: list[str], values: list[Any], required: bool = False) -> str:
    """The line that says how `values` of `key` differ; empty where they agree, and are there if `required`."""
    if all(value == values[0] for value in values):
        missing = required and values and values[0] is None
        return f"{key}: not recorded, so nobody can say that it agrees" if missing else ""
    told = [show_value(value) for value in values]
    by_framework = {framework: sorted({text for text, run in zip(told, runs, strict=True)
                                       if run.framework == framework}) for framework in FRAMEWORKS}
    if all(len(texts) == 1 for texts in by_framework.values()):
        return f"{key}: " + " ".join(f"{framework}={texts[0]}" for framework, texts in by_framework.items())
    holders: dict[str, list[str]] = {}
    for text, name in zip(told, names, strict=True):
        holders.setdefault(text, []).append(name)
    return f"{key}: " + "; ".join(f"{text} in {', '.join(owners) if len(owners) < 4 else f'{len(owners)} runs'}"
                                  for text, owners in holders.items())


def show_value(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{len(value)}: {textwrap.shorten(', '.join(map(str, value)), 60, placeholder=' ...')}]"
    return str(value) or "''"


@dataclass(frozen=True)
class Fact:
    """A row of the table; `short` is its heading where runs are rows. Shares are compared by difference, other
    numbers by ratio."""
    title: str
    short: str
    name: str
    show: Callable[[float], str]
    share: bool = False


FACTS = (
    Fact("test accuracy", "test acc", "test/accuracy", percent, share=True),
    Fact("test loss", "test loss", "test/loss", "{:.4f}".format),
    Fact("validation accuracy of the best epoch", "val acc", "val/accuracy", percent, share=True),
    Fact("first epoch, seconds", "1st ep s", "perf/first_epoch_seconds", "{:,.2f}".format),
    Fact("steady epoch, seconds", "epoch s", "perf/epoch_seconds", "{:,.2f}".format),
    Fact("images per second", "images/s", "perf/images_per_second", "{:,.0f}".format),
    Fact("peak memory, GiB", "GiB", "perf/peak_memory_gib", "{:.2f}".format),
)


def parameters(run: Run) -> str:
    count = run.record.get("parameters")
    return f"{count:,}" if is_number(count) else "-"


def precision(run: Run) -> str:
    name = run.record.get("precision")
    return "-" if name is None else f"{name}, TF32" if run.record.get("tf32") else str(name)


def device(run: Run) -> str:
    return str(run.record.get("device") or "-")


def facts_table(runs: list[Run]) -> list[Table | str]:
    """Up to three runs as columns, with a column that compares two; more as rows."""
    names = labels(runs)
    if len(runs) > 3:
        rows = [[name, *("-" if (value := run.score(fact.name)) is None else fact.show(value) for fact in FACTS)]
                for name, run in zip(names, runs, strict=True)]
        blocks: list[Table | str] = [Table(["run", *(fact.short for fact in FACTS)], rows)]
        for title, of in (("Parameters", parameters), ("Device", device), ("Precision", precision)):
            told = difference(title, runs, names, [of(run) for run in runs])
            blocks.append(told or f"{title}: {of(runs[0])}")
        return blocks
    pair = len(runs) == 2
    rows = []
    for fact in FACTS:
        values = [run.score(fact.name) for run in runs]
        row = [fact.title, *("-" if value is None else fact.show(value) for value in values)]
        rows.append([*row, compared(fact, *values)] if pair else row)
    for title, of in (("parameters", parameters), ("device", device), ("precision", precision)):
        told = [of(run) for run in runs]
        rows.append([title, *told, *(["-" if "-" in told else "same" if told[0] == told[1] else "differs"]
                                     if pair else [])])
    ratio = f"{names[1]} ÷ {names[0]}" if set(names) == set(FRAMEWORKS) else "second ÷ first"
    return [Table(["", *names, *([ratio] if pair else [])], rows)]


def compared(fact: Fact, first: float | None, second: float | None) -> str:
    if first is None or second is None:
        return "-"
    if fact.share:
        return points(second - first)
    return f"{second / first:.3f}" if first else "-"


def notes(runs: list[Run]) -> list[str]:
    """What a reader of the table has to know beside it."""
    said = [f"{name} is unfinished: its curves end early and it has no scores."
            for name, run in zip(labels(runs), runs, strict=True) if not run.finished]
    revisions = {run.record.get("git.revision") for run in runs}
    if len(revisions) > 1:
        said.append("The runs were made by different revisions of the code: "
                    + ", ".join(sorted(str(revision or "unknown")[:10] for revision in revisions)) + ".")
    counts = [run.record.get("devices", 1) for run in runs]
    if told := difference("devices", runs, labels(runs), counts):
        said.append(f"Speed and memory are of different numbers of devices ({told.removeprefix('devices: ')}).")
    for framework in FRAMEWORKS:
        if not any(run.framework == framework for run in runs):
            said.append(f"There is no run of {framework} here; train one and compare again.")
    return said


def compare(folders: list[Path], out: Path | None = None, seeds: bool = False) -> Comparison:
    """Compare the runs in `folders` and write comparison.png and comparison.md into `out`, else beside the first run.

    With `seeds` only the newest finished run per sibling and seed enters, and runs pair by seed.

    Raises:
        UserError: where a folder holds no run, a file in it is damaged, or `out` cannot be written to.
    """
    distinct = {folder.resolve(): folder for folder in folders}
    runs = [read_run(folder) for folder in distinct.values()]
    said = []
    if seeds:
        finished = newest((run for run in runs if run.finished), by=lambda run: (run.framework, run.seed))
        if not finished:
            raise UserError("--seeds compares final scores, and none of these runs has finished")
        if len(finished) < len(runs):
            said.append(f"Left out: {len(runs) - len(finished)} unfinished or older runs of a seed.")
        runs = sorted(finished, key=lambda run: run.seed)
    runs.sort(key=lambda run: FRAMEWORKS.index(run.framework))  # stable: else the order in which they were given
    differences = same_experiment(runs, up_to_seed=seeds)
    same = "same experiment" + (f" up to the seed ({len({run.seed for run in runs})} seeds)" if seeds else "")
    verdict = ("one run, nothing to compare it with" if len(runs) == 1 else
               f"NOT the same experiment: {'; '.join(differences)}" if differences else same)
    blocks = facts_table(runs) + notes(runs) + said + (seed_report(runs) if seeds else [])

    out = out or runs[0].folder.resolve().parent
    picture, page = out / "comparison.png", out / "comparison.md"
    title = heading(runs)
    try:
        out.mkdir(parents=True, exist_ok=True)
        from shared.curves import draw  # matplotlib takes a second to import

        draw(runs, labels(runs), title, verdict, not differences, picture)
        page.write_text(markdown(title, runs, differences, verdict, blocks))
    except OSError as error:
        raise UserError(f"{out}: cannot write there: {error.strerror or error}; choose another folder with "
                        "--out") from None
    return Comparison(runs, differences, verdict, blocks, picture, page)


def heading(runs: list[Run]) -> str:
    """Group, data set and model, each once."""
    parts = ([run.group for run in runs], [run.config.get("dataset.name") for run in runs],
             [run.config.get("model.name") for run in runs])
    return " · ".join(" / ".join(dict.fromkeys(str(value or "?") for value in values)) for values in parts)


def markdown(title: str, runs: list[Run], differences: list[str], verdict: str, blocks: list[Table | str]) -> str:
    said = [f"# {title}", f"**{'NOT the same experiment.' if differences else f'{verdict[0].upper()}{verdict[1:]}.'}**"]
    if differences:
        said.append("\n".join(["What differs:", "", *(f"- `{line}`" for line in differences)]))
    said.append("![loss and accuracy over samples and over wall clock](comparison.png)")
    said += [block.markdown() if isinstance(block, Table) else block for block in blocks]
    said.append("\n".join(["Runs:", "", *(f"- `{run.group}/{run.name}`" for run in runs)]))
    return "\n\n".join(said) + "\n"


def text(comparison: Comparison) -> str:
    """The comparison for a terminal."""
    def wrapped(sentence: str) -> str:
        return textwrap.fill(sentence, WIDTH, break_long_words=False, break_on_hyphens=False)

    said = [heading(comparison.runs)]
    if comparison.differences:
        said.append("NOT the same experiment. What differs:")
        said += [textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="    ", break_long_words=False,
                               break_on_hyphens=False) for line in comparison.differences]
    else:
        said.append(comparison.verdict)
    for block in comparison.blocks:
        said.append(f"\n{block.text()}\n" if isinstance(block, Table) else wrapped(block))
    return "\n".join(said).rstrip() + f"\n\npicture: {shown(comparison.picture)}\npage:    {shown(comparison.page)}"


def shown(path: Path) -> str:
    """A path as short as it can be typed where the command runs."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        raise UserError(f"{message}; see --help")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m shared.compare", allow_abbrev=False, formatter_class=argparse.RawTextHelpFormatter,
                    description="Compare runs: table, picture, and whether they are the same experiment.")
    parser.add_argument("runs", metavar="RUN", nargs="*", type=Path,
                        help="run folders; none: the newest finished run of each sibling")
    parser.add_argument("--group", metavar="NAME", help="where no RUN is named: the group to take runs from;\n"
                        "default: the one with the newest finished run")
    parser.add_argument("--output-dir", metavar="FOLDER", type=Path, default=Path("runs"),
                        help="where run folders are made; default: runs")
    parser.add_argument("--out", metavar="FOLDER", type=Path,
                        help="where comparison.png and comparison.md go; default: the group's folder")
    parser.add_argument("--seeds", action="store_true", help="take all seeds, pair runs by seed and say how large "
                        "noise is;\nof several runs of a sibling and seed the newest counts")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0, or 2 after a mistake of the user's, told in one line."""
    try:
        options = parse(arguments)
        if options.runs and options.group is not None:
            raise UserError("--group chooses among all runs, and run folders are named too; drop one of the two")
        folders = options.runs
        if not folders:
            found = finished_runs(options.output_dir.expanduser(), options.group)
            folders = [run.folder for run in newest(found, by=lambda run: (run.framework, run.seed) if options.seeds
                                                    else run.framework)]
        print(text(compare(folders, options.out and options.out.expanduser(), options.seeds)))
    except Exception as error:
        line = user_message(error)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
