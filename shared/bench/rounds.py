"""Measurements in rounds, in which all cases take turns.

They are kept in a JSON file that a later call goes on with, and their table can be written into a page between two
comments.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shared.bench.measure import run_sibling_bench, write_cifar10
from shared.config import parse_config, to_yaml
from shared.errors import UserError
from shared.machine.arguments import Parser
from shared.machine.console import Table, say
from shared.machine.files import expand_home, write_json
from shared.machine.hardware import describe_cpu, list_bf16_instructions
from shared.machine.pages import write_section
from shared.machine.versions import list_versions

Case = dict[str, Any]
Measurement = dict[str, Any]  # a case and what was found of it
FRAMEWORKS = ("torch", "lightning", "tensorflow", "keras")


def parse_arguments(arguments: list[str] | None, name: str, description: str | None) -> argparse.Namespace:
    """The options of `python -m shared.bench.NAME`."""
    parser = Parser(prog=f"python -m shared.bench.{name}", allow_abbrev=False, description=description,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", metavar="N", type=int, default=3,
                        help="measurements of each case, with those that FILE has already; default: 3")
    parser.add_argument("--out", metavar="FILE", type=Path, default=Path(f"runs/bench-{name}.json"),
                        help=f"measurements to go on with; default: runs/bench-{name}.json")
    parser.add_argument("--page", metavar="FILE", type=Path,
                        help="a page into which the table is written, where it has a place for it")
    return parser.parse_args(arguments)


@contextmanager
def prepare_bench(program: str) -> Iterator[Callable[[str, str, int, list[str]], dict[str, float]]]:
    """A function that lets a sibling's bench.py measure `what`, `count` times, with a config of random images in
    CIFAR-10's shape and of the `words` of a command line."""
    with tempfile.TemporaryDirectory() as place:
        data, file = Path(place, "cifar-10-batches-bin"), Path(place, "config.yaml")
        data.mkdir()
        write_cifar10(data, images=10_000)

        def measure(sibling: str, what: str, count: int, words: list[str]) -> dict[str, float]:
            config = parse_config(["dataset.name=cifar10", f"dataset.root={data}", "dataset.limit_test=100",
                                   f"output_dir={place}/runs", *words], program, "")
            file.write_text(to_yaml(config), encoding="utf-8")
            return run_sibling_bench(sibling, file, Path(place), what, count)
        yield measure


def measure_in_rounds(options: argparse.Namespace, cases: list[Case],
                      measure: Callable[[Case], dict[str, float]]) -> dict[str, Any]:
    """Measure each case in each round that the file has not, and return what the file holds then.

    Raises:
        UserError: where there is nothing to measure; where the file is none of these, or holds measurements of another
            CPU or of other versions.
    """
    if not cases:
        raise UserError("no sibling is installed here; make setup installs them")
    file = expand_home(options.out)
    file.parent.mkdir(parents=True, exist_ok=True)
    versions = {name: version for name, version in list_versions().items() if name in FRAMEWORKS}
    here = {"cpu": ", ".join([describe_cpu(), *list_bf16_instructions()]), "versions": versions}
    kept = read_measurements(file) if file.exists() else here | {"measurements": []}
    if options.rounds and {name: kept[name] for name in here} != here:
        raise UserError(f"{file} holds measurements of {kept['cpu']} with {kept['versions']}, and this is "
                        f"{here['cpu']} with {versions}; choose another file with --out")
    for number in range(options.rounds):
        for case in cases:
            if len(select(kept["measurements"], case)) > number:
                continue
            found = measure(case)
            kept["measurements"].append(case | found)
            write_json(file, kept, advice="choose another file with --out")
            say(f"round {number + 1} of {options.rounds}:", *case.values(), "->",
                ", ".join(f"{name} {value:.4g}" for name, value in found.items()))
    return kept


def read_measurements(file: Path) -> dict[str, Any]:
    """What `measure_in_rounds` has written: `cpu`, `versions` and `measurements`."""
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        assert {"cpu", "versions", "measurements"} <= set(kept)
    except (OSError, ValueError, AssertionError):
        raise UserError(f"{file} holds no measurements; choose another file with --out") from None
    return kept


def select(measurements: Iterable[Measurement], case: Case) -> list[Measurement]:
    """The measurements of a case, in the order of rounds."""
    return [one for one in measurements if case.items() <= one.items()]


def format_spread(values: list[float], digits: int = 0) -> str:
    """The median of values, with the lowest and the highest of several."""
    spread = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{statistics.median(values):.{digits}f}{spread}"


def print_table(options: argparse.Namespace, name: str, kept: dict[str, Any], table: Table) -> None:
    """Print the table, and write it into the page that the options name."""
    print(f"{describe_measurements(kept)}\n\n{table.to_text()}", flush=True)
    if options.page:
        write_section(expand_home(options.page), f"make {name}", format_section(kept, table))


def format_section(kept: dict[str, Any], table: Table) -> str:
    return f"{describe_measurements(kept)}\n\n{table.to_markdown()}"


def describe_measurements(kept: dict[str, Any]) -> str:
    """What all measurements have in common."""
    versions = ", ".join(f"{name} {version}" for name, version in kept["versions"].items())
    return f"{kept['cpu']}; {versions}. Medians of rounds, some with (lowest to highest)."
