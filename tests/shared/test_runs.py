"""The run folder: made once, written whole."""

import datetime
import json
import math
from pathlib import Path

import numpy as np
import pytest

from shared.config import Config, load_config
from shared.errors import UserError
from shared.machine import versions
from shared.machine.files import to_json, write_json, write_whole
from shared.runs import folder
from shared.runs.folder import RunFolder


@pytest.fixture
def config(tmp_path):
    return Config(output_dir=str(tmp_path / "runs"), experiment="made")


@pytest.fixture
def frozen(monkeypatch):
    """All runs start in the same second."""
    class Clock(datetime.datetime):
        @classmethod
        def now(cls, zone=None):
            return cls(2026, 1, 2, 3, 4, 5, tzinfo=zone)
    monkeypatch.setattr(folder.datetime, "datetime", Clock)


# Writing

def test_two_processes_that_write_the_same_file_apart_do_not_meet(tmp_path):
    path = tmp_path / "scores.json"

    def interrupt(file):
        write_json(path, {"by": "the other"}, apart=True)
        file.write_text("the first")
    write_whole(path, interrupt, apart=True)
    assert path.read_text() == "the first"
    assert [file.name for file in tmp_path.iterdir()] == ["scores.json"]


def test_writing_whole_leaves_the_old_file_where_the_writer_raises(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"a": 1})

    def cut_off(file):
        file.write_text("half")
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, cut_off)
    assert json.loads(path.read_text()) == {"a": 1}
    write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]


def test_json_has_no_nan_and_no_infinity():
    text = to_json({"a": math.nan, "b": [math.inf, 1.5], "c": {"d": -math.inf, "e": "NaN"}, "f": np.float64(0.1)})
    assert json.loads(text, parse_constant=pytest.fail) == {"a": None, "b": [None, 1.5], "c": {"d": None, "e": "NaN"},
                                                            "f": 0.1}


# A new run

def test_a_new_run_has_its_config_and_a_place_for_checkpoints(config, frozen):
    run = RunFolder.start(config, "lightning")
    assert run.folder == Path(config.output_dir) / "made" / "lightning_seed0_20260102-030405"
    assert run.name == run.folder.name
    assert run.checkpoints.is_dir()
    assert load_config(run.folder / "config.yaml") == config
    assert not run.resumed
    assert run.find_last_checkpoint() is None


def test_runs_of_the_same_second_get_folders_of_their_own(config, frozen):
    names = [RunFolder.start(config, "keras").name for _ in range(3)]
    stamp = "keras_seed0_20260102-030405"
    assert names == [stamp, f"{stamp}-1", f"{stamp}-2"]
    assert RunFolder.start(config, "lightning").name == "lightning_seed0_20260102-030405"


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_an_output_folder_that_is_a_file_is_told(config, tmp_path, place):
    (tmp_path / "file").touch()
    config.output_dir = str(tmp_path / place)
    with pytest.raises(UserError, match=r"^output_dir: .* cannot be made \(Not a directory\); choose another"):
        RunFolder.start(config, "keras")


def test_a_group_that_is_a_dangling_link_is_told(config, tmp_path):
    Path(config.output_dir).mkdir()
    (Path(config.output_dir) / "made").symlink_to(tmp_path / "gone")
    with pytest.raises(UserError, match="cannot be made, a file is in the way; choose another"):
        RunFolder.start(config, "keras")


def test_run_json_says_what_the_run_was(config):
    run = RunFolder.start(config, "keras")
    run.write_record(parameters=5, fingerprints={"order": "abc"})
    record = json.loads((run.folder / "run.json").read_text())
    assert {name: record[name] for name in ("framework", "group", "name", "seed", "parameters", "epochs")} == {
        "framework": "keras", "group": "made", "name": run.name, "seed": 0, "parameters": 5,
        "epochs": config.train.epochs}
    assert record["git"].keys() == {"revision", "dirty"}
    assert record["versions"]["numpy"] == np.__version__
    assert datetime.datetime.fromisoformat(record["started"]).tzinfo is not None


def test_outside_a_git_checkout_there_is_no_revision(monkeypatch, tmp_path):
    monkeypatch.setattr(versions, "REPOSITORY", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert versions.read_git_state() == {"revision": None, "dirty": None}
    monkeypatch.setenv("PATH", str(tmp_path))  # no git at all
    assert versions.read_git_state() == {"revision": None, "dirty": None}


def test_finishing_writes_predictions_and_then_the_result(config):
    run = RunFolder.start(config, "keras")
    logits = np.arange(6, dtype=np.float32).reshape(3, 2)
    parts = [{"logits": logits[:count], "index": np.arange(count), "label": np.array([0, 1, 0])[:count]}
             for count in (2, 3)]
    run.finish(*parts, {"test/accuracy": 0.5, "test/loss": math.nan})
    with np.load(run.folder / "predictions.npz", allow_pickle=False) as kept:
        assert set(kept) == {"logits", "index", "label", "val_logits", "val_index", "val_label"}
        assert np.array_equal(kept["logits"], logits)
        assert np.array_equal(kept["val_logits"], logits[:2])
    assert json.loads((run.folder / "result.json").read_text()) == {"test/accuracy": 0.5, "test/loss": None}
    assert not list(run.folder.glob("*.unfinished*"))
