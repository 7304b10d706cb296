"""All combinations of some values, each trained in every sibling, without search."""

import itertools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shared.config import Config, build_config, find_config_file, read_yaml, require_support
from shared.config.reading import is_path, read_override, require_known
from shared.errors import UserError
from shared.machine.console import Table, format_percent, say
from shared.machine.files import write_whole
from shared.machine.interpreters import require_interpreter
from shared.training.sweep.training import Training, run_tasks

# At commas, but for those within brackets, quotes and braces.
PARTS = re.compile(r"""(?:\[[^]]*\]|"[^"]*"|'[^']*'|\{[^}]*\}|[^,])+""")

SCRIPT = """#!/usr/bin/env bash
# {count} trainings as a job array, one for each number. From the repository's root:
#
#   sbatch {path}
#
# Each is a job of configs/launchers/slurm_SIBLING.sbatch on one machine with one GPU: two minutes before its time is up
# it saves, requeues itself and goes on. Cluster-specific lines (partition, account, modules) are yours to add, and %4
# behind the last number of the array runs four at a time.
#
#SBATCH --job-name=grid
#SBATCH --array=0-{last}
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --output=slurm-%x-%A-%a.log
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -u

cd "$SLURM_SUBMIT_DIR" || exit  # SLURM runs a copy of this script from a folder of its own
case $SLURM_ARRAY_TASK_ID in
{cases}
*) echo "error: there is no training number $SLURM_ARRAY_TASK_ID" >&2; exit 2 ;;
esac
launcher=configs/launchers/slurm_$1.sbatch
shift
exec bash "$launcher" "$@"
"""


@dataclass(frozen=True)
class Point:
    """A training of the grid: a sibling, and the words of its command line, which make `config`. `values` are those of
    the words in which the trainings differ."""
    sibling: str
    words: tuple[str, ...]
    config: Config
    values: str

    @property
    def title(self) -> str:
        return f"{self.sibling} {self.values}".rstrip()


def list_points(words: list[str], siblings: tuple[str, ...]) -> list[Point]:
    """The trainings that a command line of config files and key=value,value words asks for.

    Runs that differ in their seed alone share a group, so that `shared.compare --seeds` finds them.

    Raises:
        UserError: where one of them is no config, or a sibling does not honour it.
    """
    files = [word for word in words if is_path(word)]
    choices: dict[str, list[str]] = {}
    for word in (word for word in words if not is_path(word)):
        key, _, text = word.partition("=")
        require_known(key, "command line")
        choices[key] = PARTS.findall(text) or [""]
        if len(set(choices[key])) < len(choices[key]):
            raise UserError(f"command line: {key} names a value twice")
    for key in ("experiment", "output_dir", "resume"):
        if len(choices.get(key, [])) > 1:
            raise UserError(f"command line: {key} says where runs are; give it one value")
    paths = [find_config_file(name) for name in files or ["configs/quickstart.yaml"]]
    sources = [(str(path), read_yaml(path)) for path in paths]
    several = [key for key, values in choices.items() if len(values) > 1]
    varied = [key for key in several if key != "seed"]
    found = []
    for chosen in itertools.product(*choices.values()):
        point = dict(zip(choices, chosen, strict=True))
        group = build_words(sources, point).group
        point["experiment"] = re.sub(r"[/:]+", "-", "_".join([group, *(f"{key}={point[key]}" for key in varied)])
                                     if varied else f"{group}_grid")
        config = build_words(sources, point)
        given = [*map(str, paths), *(f"{key}={value}" for key, value in point.items())]
        for sibling in siblings:
            require_support(config, sibling)
            values = " ".join(f"{key}={point[key]}" for key in several)
            found.append(Point(sibling, tuple(given), config, values))
    return found


def build_words(sources: list[tuple[str, dict]], words: dict[str, str]) -> Config:
    """The config of files with key=value words over them. Raises `UserError`."""
    return build_config([*sources, *(("command line", read_override(f"{key}={word}")) for key, word in words.items())])


class PointTask:
    """A training of the grid."""

    def __init__(self, point: Point, place: str):
        self.point, self.place, self.training = point, place, Training(point.sibling, point.config, list(point.words))
        self.result: dict | None = None

    def begin(self) -> None:
        if self.training.find_result() is None:
            say(f"{self.place} {self.point.title}")
            self.training.start()

    def look(self) -> None: ...

    def end(self) -> None:
        self.result = self.training.find_result()
        if self.result is None:
            say(f"{self.place} {self.point.title} failed: {self.training.explain_failure()}")
        else:
            say(f"{self.describe()}, test accuracy {format_percent(self.result['test/accuracy'])}")

    def describe(self) -> str:
        return f"{self.place} {self.point.title}: {self.training.describe_last_epoch()}"


def train_points(points: list[Point], at_once: int) -> list[PointTask]:
    """Train all points that have not been trained by this command before, and return what came of each, but for those
    that another process trains.

    Raises:
        UserError: where an interpreter or a folder will not do.
        StoppedError: after SIGTERM or SIGINT.
    """
    for sibling in {point.sibling for point in points}:
        require_interpreter(sibling)
    done: list[PointTask] = []

    def take_next() -> Iterator[PointTask]:
        for number, point in enumerate(points, start=1):
            task = PointTask(point, f"{number} of {len(points)}:")
            if not task.training.hold():
                say(f"{task.place} {point.title} is trained by another process")
                continue
            done.append(task)
            yield task
    tasks = take_next()
    run_tasks(lambda: next(tasks, None), at_once)
    return done


def run_grid(points: list[Point], at_once: int) -> bool:
    """Train the points as `train_points` does, print their results, and return whether all have finished."""
    done = train_points(points, at_once)
    table = Table(["training", "sibling", "test accuracy", "epochs", "training s"], [])
    for task in done:
        cells = ["failed", "", ""] if task.result is None else [
            format_percent(task.result["test/accuracy"]), str(task.result["epochs"]),
            f"{task.result['time/train_s']:.0f}"]
        table.rows.append([task.point.values, task.point.sibling, *cells])
    print(table.to_text())
    seeds = " --seeds" * (len({task.point.config.seed for task in done}) > 1)
    for folder, group in dict.fromkeys((task.point.config.output_dir, task.point.config.group) for task in done):
        print(f"compare: python -m shared.compare{seeds} --output-dir {folder} --group {group}")
    return len(done) == len(points) and all(task.result for task in done)


def write_array(points: list[Point], path: Path) -> None:
    """Write a SLURM script at `path` that trains each point in a job of its own."""
    cases = "\n".join(f"{number}) set -- {shlex.join([point.sibling, *point.words])} ;;"
                      for number, point in enumerate(points))
    text = SCRIPT.format(count=len(points), path=path, last=len(points) - 1, cases=cases)
    write_whole(path, lambda file: file.write_text(text, encoding="utf-8"), advice="choose another file")
