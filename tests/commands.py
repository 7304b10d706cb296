"""How the commands of the README and of docs/ are checked, each in a copy of the repository that is like a fresh clone.

Commands that take minutes, or need an account or another machine, are checked in the cheapest way that still fails
where they are mistyped. `KINDS` lists all kinds of commands with the reason for each that is not run as it is typed.
"""

import os
import re
import shlex
import subprocess
import sys
import tomllib
import venv
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from shared.artifacts.command import parse_arguments
from shared.machine.interpreters import PACKAGES, is_installed, list_siblings
from tests.documented import REPOSITORY, apply_guide, copy_repository
from tests.terminal import run_in_terminal

# Who works with one framework may delete the other's folder; the pages still tell of both.
FOLDERS = {sibling: REPOSITORY / f"{sibling}_project" for sibling in PACKAGES}
DELETED = [folder for sibling, folder in FOLDERS.items() if sibling not in list_siblings()]
ABSENT = [sibling for sibling in PACKAGES if not is_installed(sibling)]
# A training of a few seconds, in place of the quick start's half a minute.
SMALL = ("dataset.limit_train=200 dataset.limit_test=60 train.epochs=1 schedule.warmup_epochs=0 train.batch_size=32 "
         "hardware.threads=1")


class Clone:
    """A copy of the repository with an environment that has the packages of this one, as `make setup` leaves it."""

    def __init__(self, place: Path):
        self.folder, self.place = copy_repository(place / "clone"), place
        self.followed: set[str] = set()
        environment = self.folder / ".venv"
        venv.create(environment, with_pip=False)
        packages = next(environment.glob("lib/python*/site-packages"))
        beside = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
        (packages / "clone.pth").write_text("\n".join([str(self.folder), *beside]))
        (environment / "bin" / "wandb").symlink_to(Path(sys.executable).with_name("wandb"))
        self.write_images()
        self.write_stand_ins()
        kept = {name: value for name, value in os.environ.items()
                if name not in ("PYTHONPATH", "MAKEFLAGS", "MAKELEVEL", "ARGS") and not name.startswith("WANDB_")}
        self.environment = kept | {
            "PATH": os.pathsep.join([str(environment / "bin"), str(place / "bin"), os.environ["PATH"]]),
            "HOME": str(place), "PYTHON": str(place / "bin" / "training"), "TPU_NAME": "local"}
        stamp = re.search(r"touch (\S+)", self.run("make --dry-run setup").stdout)[1]
        (self.folder / stamp).touch()  # which says to make that everything is installed

    def write_images(self) -> None:
        """FOLDER: two classes of noise, twelve files each."""
        draws = np.random.default_rng(0)
        for name in ("daisy", "tulip"):
            (self.folder / "images" / name).mkdir(parents=True)
            for number in range(12):
                pixels = draws.integers(0, 256, (16, 16, 3), np.uint8)
                Image.fromarray(pixels).save(self.folder / "images" / name / f"{number}.png")

    def write_stand_ins(self) -> None:
        """SLURM's commands, and an interpreter for launchers that lets train.py check its words and does not train."""
        (self.place / "bin").mkdir()
        for name, script in {
            "training": 'if [ "$1" = -c ]; then exec .venv/bin/python "$@"; fi\n'  # as make asks for its version
                        'while [ $# -gt 0 ] && [ "${1##*/}" != train.py ]; do shift; done\n'
                        'exec .venv/bin/python "$@" --print-config',
            "sbatch": 'SLURM_SUBMIT_DIR=$PWD SLURM_JOB_ID=1 SLURM_NNODES=2 SLURM_NTASKS_PER_NODE=4 SLURM_NTASKS=8 '
                      'SLURM_JOB_NODELIST=host SLURM_PROCID=0 exec bash "$@"',
            "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
            "scontrol": 'printf "host-a\\nhost-b\\n"',
        }.items():
            (self.place / "bin" / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
            (self.place / "bin" / name).chmod(0o755)

    def follow_guide(self, section: str) -> None:
        """Make the change that a section of docs/changing.md shows, once."""
        if section not in self.followed:
            apply_guide(section, self.folder)
            self.followed.add(section)

    @cached_property
    def runs(self) -> dict[str, Path]:
        """A run of each sibling, made by `make train`, the README's first command."""
        done = self.run("make train", ARGS=SMALL)
        assert DELETED or "same experiment" in done.stdout, done.stdout
        return {sibling: next(self.folder.glob(f"runs/quickstart/{sibling}_*")) for sibling in PACKAGES
                if FOLDERS[sibling] not in DELETED}

    def run(self, command: str, status: int = 0, **variables: str) -> subprocess.CompletedProcess:
        done = subprocess.run(["bash", "-c", command], cwd=self.folder, env=self.environment | variables,
                              capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == status, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done

    def fill(self, command: str) -> str:
        """`command` with what stands for something of the reader's own filled in."""
        if re.search(r"\bRUN\b", command):
            runs = [str(run.relative_to(self.folder)) for run in self.runs.values()]
            command = re.sub(r"\bRUN\b", lambda found: runs.pop(0), command)  # the first is Lightning's
        return re.sub(r"\bFOLDER\b", "images", command).replace("CHECKPOINT", "images")


def run_as_typed(clone: Clone, command: str) -> str:
    done = clone.run(clone.fill(command))
    return done.stdout + done.stderr


def run_with_runs(clone: Clone, command: str) -> str:
    return clone.runs and run_as_typed(clone, command)


def train_small(clone: Clone, command: str) -> str:
    assert clone.runs
    return "trained"


def print_config(clone: Clone, command: str) -> str:
    """Through make, its ARGS are what the option is added to."""
    command = clone.fill(command)
    if command.startswith("make "):
        assert clone.runs
        target, _, words = command.removeprefix("make ").partition(" ")
        given = " ".join(shlex.split(words)).removeprefix("ARGS=")
        command = f"make {target} ARGS={shlex.quote(given + ' --print-config')}"
    printed = clone.run(command if command.startswith("make ") else f"{command} --print-config").stdout
    assert "experiment:" in printed
    return printed


def print_help(clone: Clone, command: str) -> str:
    return clone.run(f"{command} --help").stdout


def read_export_words(clone: Clone, command: str) -> str:
    _, script, *words = shlex.split(command)
    assert (clone.folder / script).is_file()
    return str(parse_arguments(words, script.partition("_")[0], script, ""))


def make_dry(clone: Clone, command: str) -> str:
    known = re.findall(r"^(\w+) \?=", (clone.folder / "Makefile").read_text(), re.MULTILINE)
    given = [word.partition("=")[0] for word in shlex.split(command) if "=" in word]
    assert set(given) <= set(known), f"{command}: no such variable"
    return clone.run(f"{command} --dry-run").stdout


def check_activation(clone: Clone, command: str) -> str:
    found = clone.run(f"{command} && command -v python").stdout
    assert found.strip() == str(clone.folder / ".venv" / "bin" / "python")
    return found


def check_installation(clone: Clone | None, command: str) -> str:
    extra = re.fullmatch(r"pip install -e '\.\[(\w+)\]' -c constraints\.txt", command)[1]
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert extra in project["optional-dependencies"]
    assert (REPOSITORY / "constraints.txt").is_file()
    return extra


def check_file(clone: Clone, command: str) -> str:
    assert (clone.folder / shlex.split(command)[-1]).is_file()
    return "found"


def look_at_dashboard(clone: Clone, command: str) -> str:
    assert clone.runs
    return run_in_terminal(shlex.split(command), clone.folder, clone.environment, until="_seed0", leave="q")


def check_folder(clone: Clone, command: str) -> str:
    assert (clone.folder / shlex.split(command)[-1]).is_dir()
    return "found"


def check_sweep(clone: Clone, command: str) -> str:
    """What is asked of a sweep is written for another program instead, which needs all of it to be right."""
    other = "--slurm grid.sbatch" if "--grid" in command else "--wandb"
    return clone.run(clone.fill(command) if other.split()[0] in command else f"{command} {other}").stdout


@dataclass(frozen=True)
class Kind:
    """Commands that are checked alike. `check` runs one and returns what was printed; `reason` says why it is not
    simply run as it is typed."""

    pattern: str
    check: Callable[[Clone, str], str]
    reason: str = ""


TRAIN = r"(KERAS_BACKEND=jax )?python (lightning|keras)_project/train\.py"
KINDS = [
    Kind(r"make train", train_small, "the whole quick start takes a minute: here with few images"),
    Kind(r"make help", run_as_typed),
    Kind(r"make (train|parity) ARGS=.+", print_config, "takes minutes: config files and keys are checked"),
    Kind(r"make (setup|setup-gpu|demo|test|test-faults|parity|bench|bench-\w+|check-gpu|study)( \w+=(\S+|\".*\"))*",
         make_dry, "takes minutes or downloads gigabytes: make says what it would run"),
    Kind(rf"{TRAIN} .*--(help|print-config)", run_as_typed),
    Kind(rf"{TRAIN}( .*)?", print_config, "trains for minutes: config files and keys are checked"),
    Kind(r"python (lightning|keras)_project/evaluate\.py RUN", run_as_typed),
    Kind(r"(find .* \| )?python (lightning|keras)_project/predict\.py RUN .*", run_as_typed),
    Kind(r"python (lightning|keras)_project/export\.py RUN( .*)?", read_export_words,
         "takes a minute: tests/siblings/test_export.py makes every format"),
    Kind(r"python -m shared\.artifacts RUN( RUN)?", print_help, "takes a minute: the tests run it"),
    Kind(r"python -m shared\.(models|config)", run_as_typed),
    Kind(r"python -m shared\.scores RUN( --suspects)?", run_as_typed),
    Kind(r"python -m shared\.compare( .*)?", run_with_runs),
    Kind(r"python -m shared\.dashboard( .*)?", print_help, "its package is an extra: tests/shared/test_dashboard.py"),
    Kind(r"python -m shared\.card RUN", run_as_typed),
    Kind(r"KERAS_BACKEND=jax python -m shared\.parity", print_help, "takes minutes: tests/parity climbs it"),
    Kind(r"python -m shared\.serve ARTIFACT", print_help, "answers until it is stopped: tests/shared/test_serve.py"),
    Kind(r"python -m shared\.gallery RUN( .*)?", run_as_typed),
    Kind(r"python -m shared\.sweep .*", check_sweep, "trains for minutes: the file and the keys are checked"),
    Kind(r"python -m shared\.study .*", print_help, "trains for half an hour: tests/shared/test_study.py"),
    Kind(r"python -m tests\.parity\.measure_stock", print_help, "takes minutes: it imports what it measures"),
    Kind(r"\. \.venv/bin/activate", check_activation),
    Kind(r"wandb leet \./wandb", look_at_dashboard),
    Kind(r"for run in wandb/offline-run-\*; do wandb sync .+; done",
         lambda clone, command: run_with_runs(clone, command.replace("; done", " --dry-run; done")),
         "needs an account: W&B says what it would send"),
    Kind(r"pip install .*", check_installation, "downloads gigabytes: the extra and the file exist"),
    Kind(r"(\w+=\S+ )*(sbatch )?configs/launchers/\w+\.(sh|sbatch)( .*)?", run_as_typed,
         "several machines, SLURM, a TPU: stand-ins for them, and train.py checks the words it is given"),
    Kind(r"rm -r (lightning|keras)_project", check_folder, "tests/test_alone.py does it in a copy, and goes on there"),
    Kind(r"kubectl apply -f \S+", check_file, "needs a cluster: tests/launchers reads the file"),
]
