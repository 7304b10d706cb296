"""Which siblings are here is found, by tools and by make, and each one's interpreter, in one environment or in two."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shared.bench import __main__ as bench
from shared.bench import measure
from shared.errors import UserError
from shared.machine import interpreters
from shared.machine.files import REPOSITORY
from shared.parity import __main__ as parity


def stand_in(path: Path, words: str) -> Path:
    """An interpreter that writes PYTHONPATH and its arguments beside itself and then fails with `words`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    script = f"#!/bin/sh\necho \"$PYTHONPATH $@\" >> {path}.called\necho '{words}' >&2\nexit 1\n"
    path.write_text(script, encoding="utf-8")
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


def bring(folder: Path, *siblings: str) -> None:
    for sibling in siblings:
        (folder / f"{sibling}_project").mkdir(exist_ok=True)
        (folder / f"{sibling}_project" / "train.py").write_text("")


def test_siblings_are_those_whose_folders_are_here(monkeypatch, tmp_path):
    monkeypatch.setattr(interpreters, "PACKAGES", {"lightning": ("json",), "keras": ("json",)})
    assert interpreters.list_siblings() == ()
    assert not interpreters.is_installed("keras")
    (tmp_path / "lightning_project" / "__pycache__").mkdir(parents=True)  # which `git rm -r` leaves behind
    bring(tmp_path, "keras")
    assert interpreters.list_siblings() == ("keras",)
    assert interpreters.is_installed("keras")
    assert not interpreters.is_installed("lightning")
    bring(tmp_path, "lightning")
    assert interpreters.list_siblings() == ("lightning", "keras")


def test_a_sibling_alone_is_measured_and_not_compared(monkeypatch, tmp_path, capsys):
    bring(tmp_path, "keras")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="parity compares two siblings, and only keras_project is here"):
        parity.main([])
    monkeypatch.setattr(sys, "argv", ["bench"])
    monkeypatch.setattr(bench, "find_interpreter", lambda sibling: sys.executable)
    monkeypatch.setattr(bench, "measure_rounds", lambda *_: [{"train": 90.0, "bare": 100.0}])
    bench.main()
    said = capsys.readouterr().out
    assert "keras            90.0 images/s     100.0 images/s        0.900" in said
    assert "lightning" not in said


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
        called = Path(f"{python}.called").read_text(encoding="utf-8").splitlines()
        assert [line.split()[2] for line in called] == [f"{sibling}_project.bench", f"{sibling}_project.probe"]
        # This repository's code comes first, whichever clone the interpreter was installed from.
        assert {line.split()[0].split(os.pathsep)[0] for line in called} == {str(tmp_path)}


@pytest.mark.parametrize(("there", "expected"), [
    ((), {"lightning": ".venv", "keras": ".venv"}),
    ((".venv-keras",), {"lightning": ".venv", "keras": ".venv"}),
    ((".venv-lightning", ".venv-keras"), {"lightning": ".venv-lightning", "keras": ".venv-keras"}),
    ((".venv", ".venv-lightning", ".venv-keras"), {"lightning": ".venv", "keras": ".venv"}),
    # One sibling alone.
    ((".venv", ".venv-keras"), {"keras": ".venv"}), ((".venv-lightning",), {"keras": ".venv"}),
    ((".venv-keras",), {"keras": ".venv-keras"}), ((".venv-lightning",), {"lightning": ".venv-lightning"}),
])
def test_make_takes_the_siblings_and_environments_that_are_there(tmp_path, there, expected):
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text("")
    bring(tmp_path, *expected)
    for name in there:
        stand_in(tmp_path / name / "bin" / "python", "")
    apart = {name: value for name, value in os.environ.items() if name not in ("ARGS", "MAKEFLAGS", "MAKELEVEL")}
    made = ("train", "test", "test-slow", "test-faults", "bench-models")
    done = subprocess.run(["make", "--dry-run", *made], cwd=tmp_path, capture_output=True, text=True, check=True,
                          env=apart)
    lines = [line.strip() for line in done.stdout.splitlines()]
    trained = [line for line in lines if line.endswith("_project/train.py")]
    assert trained == [f"{folder}/bin/python {sibling}_project/train.py" for sibling, folder in expected.items()]
    pythons = {f"{folder}/bin/python" for folder in expected.values()}
    for tool in ("compare --html", "bench.models"):
        assert [line.split()[0] in pythons for line in lines if line.endswith(f"-m shared.{tool}")] == [True]
    for suite in ("-m 'not slow' --numprocesses 2", "-m slow --numprocesses 2", "-m pytest tests/faults"):
        assert {line.split()[0] for line in lines if line.endswith(suite)} == pythons
