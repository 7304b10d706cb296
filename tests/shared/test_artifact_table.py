"""The table and the picture of exported models."""

import json
import shutil
import signal
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from PIL import Image

from shared.artifacts import __main__ as command
from shared.artifacts import timing
from shared.artifacts.description import DESCRIPTION, read_artifact
from shared.artifacts.making import make_artifacts
from shared.artifacts.picture import GAP, draw_artifacts, spread_labels
from shared.artifacts.table import Row, find_artifacts, tabulate, write_notes, write_title
from shared.artifacts.timing import Timing, Worker
from shared.errors import StoppedError, UserError
from shared.machine.interpreters import list_variables
from shared.runs.trained import read_trained
from shared.weights.file import save_weights
from tests.shared.artifacts import build_answer, plan, write_onnx, write_run

pytest.importorskip("onnxruntime", reason="the extra export is not installed")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with two exports and what another process has left."""
    run = write_run(tmp_path_factory.mktemp("table") / "run")
    for quantisation in ("", "int8"):
        job = plan(run, quantisation)
        make_artifacts(job, build_answer(job), {"onnx": partial(write_onnx, job=job)})
    shutil.copytree(run / "exports" / "keras-onnx", run / "exports" / "keras-onnx.unfinished")
    return run


def test_a_row_for_each_export(run):
    artifacts = find_artifacts([run])
    assert [artifact.name for artifact in artifacts] == ["keras-onnx", "keras-onnx-int8"]
    rows = [Row(artifacts[0], Timing(0.51, one=[0.001] * 19 + [0.003], large=[0.032, 0.016, 0.016])),
            Row(artifacts[1], "onnxruntime is not installed here")]
    table = tabulate(rows)
    assert table.header[:2] == ["format", "made by"]
    size = f"{artifacts[0].size / 1e6:.1f}"
    assert table.rows[0][:3] == ["onnx", "keras", size]
    assert table.rows[0][-5:] == ["100/100", "0.5", "1.00", "1.10", "2,000"]  # 95 % lies between the last two
    assert table.rows[1][-4:] == ["-"] * 4
    assert any("keras-onnx-int8: onnxruntime is not installed here." in note for note in write_notes(rows))


def test_the_command(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(timing, "ROUNDS", 2)
    rows = command.compare_artifacts([run])
    out = capsys.readouterr().out
    assert [len(row.timing.one) >= timing.FEWEST for row in rows] == [True, True]
    assert all(row.timing.load > row.timing.p95 >= row.timing.p50 > 0 for row in rows)
    assert "onnx int8" in out
    page = (run / "artifacts.md").read_text(encoding="utf-8")
    assert "| onnx int8 | keras |" in page
    assert Image.open(run / "artifacts.png").size == (1600, 960)


def test_a_model_that_does_not_load_is_told(run, tmp_path):
    place = shutil.copytree(run / "exports" / "keras-onnx", tmp_path / "keras-onnx")
    (place / "model.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match="cannot be loaded"):
        timing.Worker(read_artifact(place))


def test_a_model_whose_process_dies_becomes_a_row_that_says_so(run, monkeypatch):
    measure = Worker.measure_calls

    def measure_or_die(worker, batch):
        if worker.process.args[-1].endswith("int8"):
            worker.process.kill()
        return measure(worker, batch)
    monkeypatch.setattr(Worker, "measure_calls", measure_or_die)
    monkeypatch.setattr(timing, "ROUNDS", 1)
    whole, dead = timing.measure_in_turns(find_artifacts([run]))
    assert isinstance(whole, Timing)
    assert dead == f"signal {signal.SIGKILL} ended its process"


def test_loading_ends_with_the_first_answer(run):
    words = [sys.executable, "-m", "shared.artifacts.timing", str(run / "exports" / "keras-onnx")]
    done = subprocess.run(words, input="2\n", capture_output=True, text=True, env=list_variables())
    loaded, calls = map(json.loads, done.stdout.splitlines())
    assert loaded == []  # before it was asked for anything
    assert timing.FEWEST <= len(calls) <= timing.MOST


@pytest.fixture
def other(run, tmp_path):
    """A copy of the run that says another model and another range of logits."""
    other = shutil.copytree(run, tmp_path / "other")
    for file in other.glob(f"exports/keras-onnx*/{DESCRIPTION}"):
        content = json.loads(file.read_text())
        content |= {"model": "vit_tiny", "run": "other", "checks": content["checks"] | {"logits_range": 77.7}}
        file.write_text(json.dumps(content))
    return other


def test_each_of_two_runs_has_its_own_name_and_range(run, other):
    rows = [Row(artifact, "not asked") for artifact in find_artifacts([run, other])]
    table = tabulate(rows)
    places = [table.header.index(name) for name in ("run", "of")]
    span = f"{rows[0].artifact.content['checks']['logits_range']:.3g}"
    assert [[row[place] for place in places] for row in table.rows] == [["run", span]] * 2 + [["other", "77.7"]] * 2
    assert write_title(rows) == "resnet18 on digits and vit_tiny on digits, exported"


def test_an_export_of_older_weights_is_told(run, other):
    def list_outdated():
        notes = write_notes([Row(artifact, "not asked") for artifact in find_artifacts([run, other])])
        said = " was made of other weights than best.safetensors has now; export it again."
        return [note.removesuffix(said) for note in notes if note.endswith(said)]
    assert list_outdated() == []
    trained = read_trained(str(other))
    weights = {"weight": trained.read_weights({"weight": (10, 64)})["weight"] + 1}
    save_weights(trained.weights, weights, trained.config, trained.classes)
    assert list_outdated() == [str(artifact.folder) for artifact in find_artifacts([other])]


def test_what_is_said_where_the_table_cannot_be_written_or_is_stopped(other, monkeypatch):
    monkeypatch.setattr(command, "measure_in_turns", lambda artifacts: ["not asked"] * len(artifacts))
    (other / "artifacts.md").unlink(missing_ok=True)
    (other / "artifacts.md").mkdir()
    with pytest.raises(UserError, match=r"artifacts.md cannot be written .* make room, or name a run first"):
        command.compare_artifacts([other])
    monkeypatch.setattr(command, "compare_artifacts", lambda runs: signal.raise_signal(signal.SIGINT))
    monkeypatch.setattr(sys, "argv", ["artifacts", str(other)])
    with pytest.raises(StoppedError, match="stopped; nothing was written"):
        command.main()


def test_a_run_without_exports(tmp_path):
    with pytest.raises(UserError, match="has no exported models; make some with"):
        find_artifacts([tmp_path])


def test_labels_do_not_lie_over_each_other(run, tmp_path):
    heights = spread_labels([(0.1, 0.5), (0.1, 0.5), (0.12, 0.51), (0.8, 0.5)])
    assert np.diff(sorted(heights[:3])).min() >= GAP - 1e-6
    assert heights[3] == 0.5  # it has no neighbour
    draw_artifacts([], "nothing could be run", tmp_path / "empty.png")
    assert (tmp_path / "empty.png").stat().st_size > 0
