"""A sibling works without the other's folder, and a second clone runs its own code.

Each test works in a copy of the repository, with the Python that runs the tests.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shared.machine.files import REPOSITORY
from shared.machine.interpreters import PACKAGES, is_installed, list_siblings
from tests.documented import copy_repository

TINY = ("dataset.limit_train=100", "dataset.limit_test=40", "train.epochs=1", "train.batch_size=32",
        "schedule.warmup_epochs=0", "tracking.mode=disabled", "hardware.threads=1", "hardware.accelerator=cpu")
INSTALLED = [name for name in list_siblings() if is_installed(name)]
OTHER = {"lightning": "keras", "keras": "lightning"}
# What may not be said where the sibling's folder is gone.
NAMES = {"lightning": ("lightning", "pytorch"), "keras": ("keras", "tensorflow")}

pytestmark = pytest.mark.timeout(300)

# Python imports this module at its start: what was deleted, and its framework, are not to be found elsewhere either.
BLOCKER = """
import sys

class Blind:
    def __init__(self, find_spec):
        self.original = find_spec

    def find_spec(self, name, *rest, **named):
        return None if name.partition(".")[0] in {gone} else self.original(name, *rest, **named)

for finder in sys.meta_path:
    finder.find_spec = Blind(finder.find_spec).find_spec
"""


def run(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess:
    """Run a command in `folder`, without what `make test` or a hook of git may have put into the environment."""
    own = ("ARGS", "EXTRAS", "VENV", "PYTHON", "CONSTRAINTS", "AT_ONCE", "MAKEFLAGS", "MAKELEVEL", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items()
            if name not in own and not name.startswith(("GIT_", "PYTEST_", "TEMPLATE_"))}
    return subprocess.run(command, cwd=folder, env=kept | variables, capture_output=True, text=True, timeout=280)


class Copy:
    """A copy of the repository with one sibling's folder, and a Python that does not know the other."""

    def __init__(self, folder: Path, sibling: str):
        self.sibling, self.lost = sibling, OTHER[sibling]
        self.folder = copy_repository(folder / "copy")
        shutil.rmtree(self.folder / f"{self.lost}_project")
        gone = (*PACKAGES[self.lost], *(("timm",) if self.lost == "lightning" else ()), f"{self.lost}_project")
        self.hook = folder / "hook"
        self.hook.mkdir()
        (self.hook / "sitecustomize.py").write_text(BLOCKER.format(gone=gone))
        python = self.folder / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
        (self.folder / ".venv" / ".installed-dev").touch()

    def run(self, *command: str) -> subprocess.CompletedProcess:
        return run(self.folder, *command, PYTHONPATH=str(self.hook))

    def make(self, *words: str) -> subprocess.CompletedProcess:
        """Run make, and see that it says nothing of the sibling that is gone."""
        done = self.run("make", "EXTRAS=dev", *words)
        said = (done.stdout + done.stderr).lower()
        assert [word for word in (*NAMES[self.lost], "both siblings") if word in said] == [], said
        return done


@pytest.fixture(scope="module", params=list_siblings(), ids=lambda sibling: f"only_{sibling}")
def copy(request, tmp_path_factory):
    if len(list_siblings()) < 2:
        pytest.skip("a sibling is gone here already")
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    return Copy(tmp_path_factory.mktemp("one"), request.param)


def test_make_offers_what_works(copy):
    done = copy.make("help")
    assert done.returncode == 0
    assert f"  make {copy.sibling}" in done.stdout
    for target in ("setup", "setup-gpu", "train", "test", "lint", "compare", "bench"):
        assert f"  make {target} " in done.stdout
    done = copy.make("--dry-run", "setup", "setup-gpu", "train", "test", "lint", "compare", "bench", "bench-models")
    assert done.returncode == 0, done.stderr
    # What is set up where nobody says what.
    done = copy.run("make", "--dry-run", "setup")
    assert f"--editable '.[{copy.sibling}," in done.stdout
    assert copy.lost not in done.stdout


@pytest.mark.slow
def test_it_trains_and_shows_its_run(copy):
    if not is_installed(copy.sibling):
        pytest.skip(f"the {copy.sibling} sibling is not installed")
    done = copy.make("train", f"ARGS={' '.join(TINY)}")
    assert done.returncode == 0, done.stderr
    assert "one run, nothing to compare it with" in done.stdout
    assert len(list(copy.folder.glob("runs/quickstart/*/result.json"))) == 1
    # A run from before the other folder was deleted is not dug out.
    old = copy.folder / "runs" / "quickstart" / f"{copy.lost}_seed0_20990101-000000"
    shutil.copytree(next(copy.folder.glob("runs/quickstart/*/")), old)
    record = json.loads((old / "run.json").read_text()) | {"framework": copy.lost}
    (old / "run.json").write_text(json.dumps(record))
    done = copy.make("compare")
    assert done.returncode == 0, done.stderr
    assert "one run, nothing to compare it with" in done.stdout
    shutil.rmtree(old)


def test_parity_says_that_it_needs_two(copy):
    done = copy.make("parity")
    assert done.returncode == 2
    line = done.stderr.splitlines()[0]
    assert line.startswith("error: ")
    assert f"only {copy.sibling}_project is here" in line


@pytest.mark.slow
def test_its_tests_pass(copy):
    done = copy.run(sys.executable, "-m", "pytest", "-q", "--collect-only", "tests")
    assert done.returncode == 0, done.stdout[-3000:]
    done = copy.run(sys.executable, "-m", "pytest", "-q", "tests/test_mirror.py", "tests/shared/test_config_files.py",
                    "tests/shared/test_interpreters.py", "tests/shared/test_command.py")
    assert done.returncode == 0, done.stdout[-3000:]


# A second clone, run with an environment in which the first is installed

MARK = """
import os
with open(os.environ["MARKS"], "a") as file:
    file.write(f"{__name__} {os.getpid()}\\n")
"""


class Clone:
    """A copy of the repository whose packages leave a mark in each process that imports them."""

    def __init__(self, folder: Path):
        self.folder = copy_repository(folder / "second")
        self.elsewhere, self.marks = folder / "elsewhere", folder / "marks"
        self.elsewhere.mkdir()
        for package in ("shared", *(f"{name}_project" for name in list_siblings())):
            with (self.folder / package / "__init__.py").open("a") as file:
                file.write(MARK)
        self.revision = self.commit() if shutil.which("git") else None

    def commit(self) -> str:
        """Make the copy a repository of its own, and return its revision."""
        assert not (self.folder / ".git").exists()  # else git would work on the one that was copied
        person = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
        for words in (("init", "--quiet"), ("add", "--all"), (*person, "commit", "--quiet", "--message=second")):
            done = run(self.folder, "git", *words)
            assert done.returncode == 0, done.stderr
        return run(self.folder, "git", "rev-parse", "HEAD").stdout.strip()

    def run(self, folder: Path, *command: str) -> dict[str, set[str]]:
        """The processes that imported each package of this clone while the command ran."""
        self.marks.write_text("")
        done = run(folder, *command, PYTHONPATH=str(REPOSITORY), MARKS=str(self.marks))
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        found = {}
        for line in self.marks.read_text().splitlines():
            package, process = line.split()
            found.setdefault(package, set()).add(process)
        return found


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    return Clone(tmp_path_factory.mktemp("clones"))


@pytest.mark.slow
@pytest.mark.parametrize("sibling", INSTALLED, ids=lambda sibling: f"clone_of_{sibling}")
def test_a_second_clone_trains_with_its_own_code(clone, sibling):
    # For a second device Lightning starts the entry point again; Keras has all its devices in one process.
    expected = 2 if sibling == "lightning" else 1
    processes = clone.run(clone.elsewhere, sys.executable, str(clone.folder / f"{sibling}_project" / "train.py"), *TINY,
                          f"hardware.devices={expected}", f"output_dir={clone.elsewhere}")
    assert processes.keys() == {"shared", f"{sibling}_project"}
    assert {package: len(found) for package, found in processes.items()} == dict.fromkeys(processes, expected)
    record = json.loads(next(clone.elsewhere.glob(f"*/{sibling}_*/run.json")).read_text())
    assert record["git"]["revision"] == clone.revision


@pytest.mark.parametrize("sibling", list_siblings(), ids=lambda sibling: f"clone_of_{sibling}")
def test_every_entry_point_of_a_second_clone_runs_its_own_code(clone, sibling):
    entries = [path for path in (clone.folder / f"{sibling}_project").glob("*.py") if "run_command" in path.read_text()]
    assert {"train.py", "evaluate.py"} <= {path.name for path in entries}
    for path in entries:
        assert len(clone.run(clone.elsewhere, sys.executable, str(path), "--help")["shared"]) == 1


def test_tools_of_a_second_clone_are_its_own(clone):
    for tool in ("compare", "parity", "bench"):
        assert "shared" in clone.run(clone.folder, sys.executable, "-m", f"shared.{tool}", "--help")


def test_a_function_and_a_file_more_in_one_sibling_leave_its_tests_whole(clone):
    sibling = clone.folder / f"{list_siblings()[0]}_project"
    (sibling / "extra.py").write_text("def shift(images):\n    return images + 1\n")
    with (sibling / "data.py").open("a") as file:
        file.write("\n\ndef shift(images, by, of=None):\n    return images + by\n")
    assert "shared" in clone.run(clone.folder, sys.executable, "-m", "pytest", "-q", "tests/test_mirror.py")
