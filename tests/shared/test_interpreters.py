"""Each sibling's interpreter is found, by tools and by make, in one environment for both or one for each."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shared.bench import measure
from shared.errors import UserError
from shared.machine import interpreters
from shared.machine.files import REPOSITORY
from shared.parity import __main__ as parity


def stand_in(path: Path, words: str) -> Path:
    """An interpreter that writes its arguments beside itself and then fails with `words`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho \"$@\" >> {path}.called\necho '{words}' >&2\nexit 1\n")
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.setattr(interpreters, "REPOSITORY", tmp_path)
    for sibling in interpreters.PACKAGES:
        monkeypatch.delenv(interpreters.name_variable(sibling), raising=False)


@pytest.fixture
def has(monkeypatch):
    """Say which siblings this interpreter has."""
    return lambda *siblings: monkeypatch.setattr(interpreters, "is_installed", lambda sibling: sibling in siblings)


def test_the_order_of_choice(monkeypatch, tmp_path, has):
    has()
    assert interpreters.find_interpreter("keras") is None
    with pytest.raises(UserError, match=r"the keras sibling is not installed here, .* with TEMPLATE_KERAS_PYTHON"):
        interpreters.require_interpreter("keras")
    own = stand_in(tmp_path / ".venv-keras" / "bin" / "python", "")
    assert interpreters.require_interpreter("keras") == str(own)
    has("keras")
    assert interpreters.require_interpreter("keras") == sys.executable
    monkeypatch.setenv("TEMPLATE_KERAS_PYTHON", str(tmp_path / "other"))
    assert interpreters.require_interpreter("keras") == str(tmp_path / "other")
    monkeypatch.setenv("TEMPLATE_KERAS_PYTHON", "python3.12")
    assert interpreters.require_interpreter("keras") == "python3.12"


@pytest.mark.parametrize("by", ["variable", "folder"])
def test_parity_and_bench_start_each_sibling_with_its_own(monkeypatch, tmp_path, has, by):
    has()
    for sibling in interpreters.PACKAGES:
        python = stand_in(tmp_path / f".venv-{sibling}" / "bin" / "python", f"error: this is {sibling}")
        if by == "variable":
            monkeypatch.setenv(interpreters.name_variable(sibling), str(python))
        (tmp_path / "work").mkdir(exist_ok=True)
        with pytest.raises(UserError, match=f"this is {sibling}"):
            measure.measure_rounds(sibling, tmp_path / "config.yaml", tmp_path / "work")
        label = {name: label for label, name in parity.SIBLINGS.items()}[sibling]
        with pytest.raises(RuntimeError, match=f"this is {sibling}"):
            parity.start_probe(label, [], tmp_path / "work").wait()
        called = Path(f"{python}.called").read_text().splitlines()
        assert [line.split()[1] for line in called] == [f"{sibling}_project.bench", f"{sibling}_project.probe"]


@pytest.mark.parametrize(("there", "lightning", "keras"), [
    ((), ".venv", ".venv"), ((".venv-keras",), ".venv", ".venv"),
    ((".venv-lightning", ".venv-keras"), ".venv-lightning", ".venv-keras"),
    ((".venv", ".venv-lightning", ".venv-keras"), ".venv", ".venv"),
])
def test_make_takes_the_environments_that_are_there(tmp_path, there, lightning, keras):
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text("")
    for name in there:
        stand_in(tmp_path / name / "bin" / "python", "")
    apart = {name: value for name, value in os.environ.items() if name not in ("ARGS", "MAKEFLAGS", "MAKELEVEL")}
    done = subprocess.run(["make", "--dry-run", "train", "test", "test-faults", "bench-models"], cwd=tmp_path,
                          capture_output=True, text=True, check=True, env=apart)
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert f"{lightning}/bin/python lightning_project/train.py" in lines
    assert f"{keras}/bin/python keras_project/train.py" in lines
    assert f"{lightning}/bin/python -m shared.bench.models" in lines
    for suite in ("-m pytest --numprocesses 2", "-m pytest tests/faults"):
        tested = {line.split()[0] for line in lines if line.endswith(suite)}
        assert tested == {f"{lightning}/bin/python", f"{keras}/bin/python"}
