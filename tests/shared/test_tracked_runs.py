"""Weights & Biases and TensorBoard for real: what a process writes, and faults that hit it."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest import mock

import pytest

from shared.machine.files import REPOSITORY
from tests.wandb_faults import Server, Store, environment, full_disk, tracked

pytestmark = pytest.mark.usefixtures("nobody")


SCRIPT = """
import sys
from PIL import Image
from shared.config import parse_config
from shared.runs.folder import RunFolder
from shared.training.examples import Example
from shared.training.trackers import Trackers

run = RunFolder.start(parse_config(sys.argv[1:], "", ""), "lightning")
run.record = {"git": {"revision": "0123abcd", "dirty": False}}
run.best_weights.write_bytes(b"weights")
tracker = Trackers(run)
for step in (1, 2):
    tracker.log({"samples": 10 * step, "epoch": step / 2, "time/train_s": 0.5 * step, "train/loss": 1 / step,
                 "val/accuracy": 0.25 * step})
picture = run.folder / "confusion.png"
Image.new("L", (2, 2)).save(picture)
tracker.finish({"test/accuracy": 0.75}, status=0, pictures=[picture], collect_examples=lambda: [
    Example(Image.new("L", (2, 2), number), number, "cat", "dog", False, 0.5) for number in (3, 7)])
print(run.folder)
print(sorted({name.partition(".")[0] for name in sys.modules} & {"tensorflow", "torch", "keras", "wandb"}))
"""


def process(*words, env=None, **options):
    env = env or {**os.environ, "PYTHONPATH": str(REPOSITORY), "WANDB_ERROR_REPORTING": "false"}
    return subprocess.run([sys.executable, "-c", SCRIPT, "output_dir=runs", *words], capture_output=True, text=True,
                          timeout=120, env=env, **options)


def test_without_a_key_an_offline_run_is_written_and_nobody_is_asked(tmp_path):
    reading, writing = os.pipe()
    os.close(writing)  # whoever asks finds the end of the file
    try:
        done = process("experiment=made", stdin=reading)
    finally:
        os.close(reading)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    folder, imported = done.stdout.splitlines()
    assert imported == "['wandb']"
    kept = list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert [path.stem for path in kept] == [f"run-{Path(folder).name}"]
    content = kept[0].read_bytes()
    for word in ("train/loss", "val/accuracy", "samples", "test/accuracy", "lightning", "made", "label_smoothing",
                 "test/predictions", "0123abcd"):
        assert word.encode() in content, word
    assert len(list(kept[0].parent.glob("files/media/images/test/confusion_*.png"))) == 1
    [table] = kept[0].parent.glob("files/media/table/test/predictions_*.table.json")
    table = json.loads(table.read_text())
    assert table["columns"] == ["image", "number", "label", "answer", "is_right", "probability"]
    assert [row[1:] for row in table["data"]] == [[3, "cat", "dog", False, 0.5], [7, "cat", "dog", False, 0.5]]
    # The images wait beside the run, from where `wandb sync` sends them, and not in the user's home.
    waiting = [path.read_bytes() for path in (tmp_path / "wandb" / "artifacts" / "staging").iterdir()]
    assert sum(content.startswith(b"\x89PNG") for content in waiting) == 2
    assert b"weights" not in waiting
    with Store() as server:
        done = subprocess.run([Path(sys.executable).with_name("wandb"), "sync", kept[0].parent], capture_output=True,
                              text=True, timeout=90, check=False, env=environment(tmp_path / "home", server))
    assert done.returncode == 0, done.stderr
    sent = json.loads(server.files["test/predictions.table.json"])
    assert all(server.files[row[0]["path"]] in waiting for row in sent["data"])


def test_online_examples_and_weights_arrive(tmp_path):
    with Store() as server:
        done = process("tracking.mode=online", "experiment=made", env=environment(tmp_path / "home", server))
    assert (done.returncode, done.stderr) == (0, "")
    name = Path(done.stdout.splitlines()[0]).name
    assert server.types.pop(name) == "model"
    assert list(server.types.values()) == ["run_table"]
    assert server.files["best.safetensors"] == b"weights"
    table = json.loads(server.files["test/predictions.table.json"])
    assert [row[1:] for row in table["data"]] == [[3, "cat", "dog", False, 0.5], [7, "cat", "dog", False, 0.5]]
    assert all(server.files[row[0]["path"]].startswith(b"\x89PNG") for row in table["data"])


@pytest.mark.parametrize("way", ["WANDB_DISABLED=true", "WANDB_MODE=disabled", "wandb disabled"])
def test_disabled_in_any_way_nothing_is_written(tmp_path, monkeypatch, way):
    if "=" in way:
        monkeypatch.setenv(*way.split("="))
    else:  # W&B's own command, which leaves a settings file
        wandb = Path(sys.executable).with_name("wandb")
        subprocess.run([wandb, "disabled"], check=True, capture_output=True)
    done = process("experiment=made", "tracking.mode=auto")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[1] == "[]"
    assert list(tmp_path.glob("wandb/*run-*")) == []


def test_tensorboard_reads_back_what_was_written_and_tensorflow_stays_out(tmp_path):
    done = process("tracking.mode=disabled", "tracking.tensorboard=true")
    assert done.returncode == 0, done.stderr
    folder, imported = done.stdout.splitlines()
    assert imported == "[]"
    assert not (tmp_path / "wandb").exists()

    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    events = [event for path in (tmp_path / folder / "tensorboard").iterdir()
              for event in EventFileLoader(str(path)).Load()]
    found = {(value.tag, event.step): value.tensor.float_val[0] for event in events for value in event.summary.value}
    assert found == {("train/loss", 10): 1.0, ("train/loss", 20): 0.5, ("val/accuracy", 10): 0.25,
                     ("val/accuracy", 20): 0.5}


# Faults for real, with a shorter patience; tests/faults has the real one

@pytest.mark.parametrize("fault", ["refuses", "hangs", "fails"])
def test_a_server_out_of_reach_at_the_start(tmp_path, fault):
    with Server(fault) as server:
        done = tracked(tmp_path, server, patience=2)
    assert done.rows == 10
    assert done.seconds["start"] < 45  # W&B itself waits for 90 seconds
    assert done.seconds["rows"] < 2
    assert done.seconds["end"] < 5
    assert len(done.told) == 1
    assert "Weights & Biases cannot be reached" in done.told[0]
    kept = list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(kept) == 1
    assert b"train/loss" in kept[0].read_bytes()


@pytest.mark.parametrize("fault", ["refuses", "hangs"])
def test_a_server_that_is_lost_in_mid_run(tmp_path, fault):
    with Server("answers") as server:
        done = tracked(tmp_path, server, patience=2, after_row_5=lambda: server.become(fault))
    assert server.asked > 2
    assert done.rows == 10
    assert done.seconds["rows"] < 2
    assert done.seconds["end"] < 8
    assert len(done.told) == 1
    assert "not everything was sent within 2 s, `wandb sync " in done.told[0]


def test_a_server_that_answers_gets_everything_and_nothing_is_told(tmp_path):
    with Server("answers") as server:
        done = tracked(tmp_path, server, patience=15)
    assert done.told == []
    assert done.rows == 10
    assert server.sent("train/loss")


def test_wandbs_process_killed_in_mid_run(tmp_path):
    done = tracked(tmp_path, None, patience=15, after_row_5="kill")
    assert done.rows == 10
    assert done.seconds["rows"] < 5
    assert done.seconds["end"] < 5
    assert len(done.told) == 1
    assert done.told[0].startswith("Weights & Biases failed and is left out from here on: ")


def test_a_process_of_wandb_that_never_ends_holds_nobody(monkeypatch):
    import wandb

    from shared.training.trackers import wandb as tracker

    ending, end = threading.Event(), threading.Event()

    def teardown():
        ending.set()
        end.wait(30)
    monkeypatch.setattr(wandb, "teardown", teardown)
    monkeypatch.setattr(tracker, "TIMEOUT", 0.1)
    before = time.perf_counter()
    tracker.WeightsAndBiases(mock.Mock()).abandon()
    assert time.perf_counter() - before < 20
    assert ending.is_set()
    end.set()


@pytest.mark.parametrize("place", ["file", "unwritable"])
def test_a_wandb_folder_that_cannot_be_written(tmp_path, place):
    (tmp_path / "file").write_text("")
    done = tracked(tmp_path, None, patience=15, WANDB_DIR="file" if place == "file" else "/proc/self")
    assert done.rows == 10
    assert len(done.told) == 1
    assert "nothing can be written in" in done.told[0]


@pytest.mark.parametrize("full_from", ["start", "row 5"])
def test_a_full_disk(tmp_path, full_from):
    with full_disk(tmp_path / "disk") as fill:
        if full_from == "start":
            fill()
        done = tracked(tmp_path, None, patience=15, after_row_5=fill, WANDB_DIR="disk")
    assert done.rows == 10
    assert done.seconds["end"] < 5
    assert len(done.told) == 1
    assert "No space left on device" in done.told[0]
