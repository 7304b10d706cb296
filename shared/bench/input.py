"""Measure how many photographs per second each sibling reads from files, beside what PyTorch's and Keras' own recipes
read.

python -m shared.bench.input

The photographs are JPEGs of three sizes. Each recipe cuts out random areas of them (Keras' own scales the whole
photograph), scales them to 224 pixels, mirrors half of them and normalises all; nothing is trained. Each measurement
runs in a process of its own with as many CPU cores as readers, and recipes take turns. The first epoch counts from the
start of reading, with the writing of a cache; the second is the mean of those that follow it. Images per core are those
of the second epoch per second of CPU time, of which other work on the machine takes less than of the clock's.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from shared.bench.measure import run_sibling_bench
from shared.bench.photographs import write_photographs
from shared.config import parse_config, to_yaml
from shared.errors import UserError
from shared.machine.arguments import Parser
from shared.machine.console import Table, say
from shared.machine.ending import report_errors
from shared.machine.files import expand_home, write_json, write_whole
from shared.machine.hardware import count_cores, describe_cpu
from shared.machine.interpreters import find_interpreter, list_siblings

PHOTOGRAPHS = {"500x375": 256, "1280x960": 128, "4000x3000": 48}  # how many of each size are an epoch
SECONDS = 3  # for which later epochs are read, and until the end of the last one
SIZE, BATCH = 224, 16
STOCK = {"lightning": "torchvision", "keras": "keras.utils"}
SETTINGS = {"exact": (), "coarse": ("dataset.decode=coarse",), "exact, cache": ("dataset.cache=disk",),
            "coarse, cache": ("dataset.decode=coarse", "dataset.cache=disk")}


@dataclass
class Measurement:
    photographs: str
    readers: int
    sibling: str
    recipe: str
    round: int
    first: float    # images per second of the first epoch
    second: float
    per_core: float  # images per second of CPU time of the second epoch
    peak_memory_gib: float


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m shared.bench.input", allow_abbrev=False, description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", metavar="N", type=int, default=5, help="measurements of each recipe; default: 5")
    parser.add_argument("--readers", metavar="N", type=int, nargs="+",
                        help="numbers of readers; default: 1 2 4 8, as far as there are cores")
    parser.add_argument("--photographs", metavar="SIZE", nargs="+", choices=PHOTOGRAPHS, default=list(PHOTOGRAPHS),
                        help=f"sizes, of {', '.join(PHOTOGRAPHS)}; default: all")
    parser.add_argument("--out", metavar="FOLDER", type=Path, default=Path("runs"),
                        help="where bench-input.json and bench-input.md go; default: runs")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    cores = count_cores()
    readers = options.readers or [number for number in (1, 2, 4, 8) if number <= cores]
    if options.rounds < 1 or not all(1 <= number <= cores for number in readers):
        raise UserError(f"--rounds has to be 1 or more, and --readers from 1 to {cores}, the number of cores here")
    siblings = [sibling for sibling in list_siblings() if find_interpreter(sibling)]
    if not siblings:
        raise UserError("no sibling is installed here; make setup installs them")
    out = expand_home(options.out)
    out.mkdir(parents=True, exist_ok=True)
    found: list[Measurement] = []
    with tempfile.TemporaryDirectory() as place:
        os.environ["TEMPLATE_CACHE"] = f"{place}/cache"
        for photographs in options.photographs:
            root = Path(place, photographs)
            write_photographs(root, *map(int, photographs.split("x")), PHOTOGRAPHS[photographs])
            for number in range(options.rounds):
                for count in readers:
                    found += measure_round(root, count, number, siblings)
                write_results(out, found)
            shutil.rmtree(root)
    print(f"{describe_cpu()}; {options.rounds} rounds, areas scaled to {SIZE} pixels, batches of {BATCH}\n\n"
          f"{tabulate(found).to_markdown()}")


def measure_round(root: Path, readers: int, number: int, siblings: list[str]) -> list[Measurement]:
    """One measurement of each recipe, with so many readers."""
    found = []
    for recipe in ("", *SETTINGS):
        for sibling in siblings:
            shutil.rmtree(os.environ["TEMPLATE_CACHE"], ignore_errors=True)
            config = parse_config([
                "dataset.name=image_folder", f"dataset.root={root}", f"dataset.image_size={SIZE}",
                "augment.crop=resized", "augment.flip=true", f"train.batch_size={BATCH}", "train.epochs=10000",
                "hardware.accelerator=cpu", f"hardware.workers={readers}", *SETTINGS.get(recipe, ())],
                "python -m shared.bench.input", __doc__)
            file = root.parent / "config.yaml"
            file.write_text(to_yaml(config), encoding="utf-8")
            rates = run_sibling_bench(sibling, file, root.parent, "input" if recipe else "stock_input", SECONDS)
            name = recipe or STOCK[sibling]
            found.append(Measurement(root.name, readers, sibling, name, number, **rates))
            say(f"round {number + 1}, {root.name}, {readers} readers, {sibling}, {name}: {rates['first']:.1f} images/s "
                f"and {rates['second']:.1f}")
    return found


def write_results(out: Path, found: list[Measurement]) -> None:
    write_json(out / "bench-input.json", {"cpu": describe_cpu(), "measurements": [asdict(one) for one in found]})
    write_whole(out / "bench-input.md",
                lambda file: file.write_text(tabulate(found).to_markdown() + "\n", encoding="utf-8"))


def tabulate(found: list[Measurement]) -> Table:
    """A row for each recipe with medians, the spread of images per core, and how many times those of torchvision they
    are, or of keras.utils where the Lightning sibling is not installed."""
    table = Table(["photographs", "readers", "recipe", "images/s, first epoch", "second epoch", "per core",
                   "lowest to highest", "times the stock recipe", "peak GiB"], [])
    groups: dict[tuple, list[Measurement]] = {}
    for one in found:
        groups.setdefault((one.photographs, one.readers, one.sibling, one.recipe), []).append(one)
    for (photographs, readers, sibling, recipe), rounds in groups.items():
        first, second, per_core, memory = (statistics.median(getattr(one, name) for one in rounds)
                                           for name in ("first", "second", "per_core", "peak_memory_gib"))
        stock = next(others for (size, count, _, name), others in groups.items()
                     if (size, count) == (photographs, readers) and name in STOCK.values())
        pairs = zip(rounds, stock, strict=True)  # of the same round, in which recipes took turns
        times = statistics.median(one.per_core / other.per_core for one, other in pairs)
        spread = [one.per_core for one in rounds]
        name = recipe if recipe in STOCK.values() else f"{sibling}, {recipe}"
        table.rows.append([photographs, str(readers), name, f"{first:.0f}", f"{second:.0f}", f"{per_core:.0f}",
                           f"{min(spread):.0f} to {max(spread):.0f}", f"{times:.2f}", f"{memory:.2f}"])
    return table


if __name__ == "__main__":
    report_errors(lambda: main(sys.argv[1:]))
