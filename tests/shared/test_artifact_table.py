"""The table and the picture of exported models."""

import shutil
from functools import partial

import numpy as np
import pytest
from PIL import Image

from shared.artifacts import __main__ as command
from shared.artifacts import timing
from shared.artifacts.description import read_artifact
from shared.artifacts.making import make_artifacts
from shared.artifacts.picture import GAP, draw_artifacts, spread_labels
from shared.artifacts.table import Row, find_artifacts, tabulate, write_notes
from shared.artifacts.timing import Timing
from shared.errors import UserError
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


def test_a_run_without_exports(tmp_path):
    with pytest.raises(UserError, match="has no exported models; make some with"):
        find_artifacts([tmp_path])


def test_labels_do_not_lie_over_each_other(run, tmp_path):
    heights = spread_labels([(0.1, 0.5), (0.1, 0.5), (0.12, 0.51), (0.8, 0.5)])
    assert np.diff(sorted(heights[:3])).min() >= GAP - 1e-6
    assert heights[3] == 0.5  # it has no neighbour
    draw_artifacts([], "nothing could be run", tmp_path / "empty.png")
    assert (tmp_path / "empty.png").stat().st_size > 0
