"""Weights & Biases and TensorBoard: what they are told, never asking, never stopping a training."""

import logging
import sys
import types

import pytest
from PIL import Image

from shared.errors import UserError
from shared.training.examples import Example
from shared.training.trackers import Trackers
from tests.wandb_faults import DUMMY_KEY

pytestmark = pytest.mark.usefixtures("nobody")
ROW = {"samples": 64, "epoch": 0.5, "time/train_s": 1.25, "train/loss": 2.0, "lr": 0.1}


# What W&B is told

def test_both_siblings_are_one_group_with_the_same_axes(tracked, fake_wandb):
    made = fake_wandb()
    here = tracked(mode="offline", tags=["mine"], project="other")
    here.record = {"git": {"revision": "0123abcd"}}
    tracker = Trackers(here)
    words = made.words
    assert (words["project"], words["group"], words["name"], words["id"]) == ("other", "made", here.name, here.name)
    assert words["tags"] == ["keras", "mine"]
    assert (words["config"]["framework"], words["config"]["git"]) == ("keras", {"revision": "0123abcd"})
    assert words["config"]["train"]["epochs"] == here.config.train.epochs
    assert [names for names, _ in made.axes] == [("samples",), ("epoch",), ("time/train_s",), ("*",)]
    assert made.axes[-1][1] == {"step_metric": "samples"}
    tracker.log(ROW)
    tracker.finish({"test/accuracy": 0.5}, status=0)
    assert (made.rows, made.summary, made.status) == ([ROW], {"test/accuracy": 0.5}, 0)


def test_pictures_are_logged_by_their_names(tracked, fake_wandb, tmp_path):
    import wandb

    made = fake_wandb()
    Image.new("L", (2, 2)).save(tmp_path / "confusion.png")
    Trackers(tracked(mode="offline")).finish({}, status=0, pictures=[tmp_path / "confusion.png"])
    [row] = made.rows
    assert row.keys() == {"test/confusion"}
    assert isinstance(row["test/confusion"], wandb.Image)
    assert made.status == 0


EXAMPLES = [Example(Image.new("RGB", (2, 2)), 5, "cat", "dog", False, 0.5)]


def test_examples_are_logged_as_a_table_with_their_images(tracked, fake_wandb):
    import wandb

    made = fake_wandb()
    Trackers(tracked(mode="offline")).finish({}, status=0, collect_examples=lambda: EXAMPLES)
    [row] = made.rows
    table = row["test/predictions"]
    assert table.columns == ["image", "number", "label", "answer", "is_right", "probability"]
    [[image, *rest]] = table.data
    assert isinstance(image, wandb.Image)
    assert rest == [5, "cat", "dog", False, 0.5]


def test_examples_that_cannot_be_read_do_not_keep_a_run_from_ending(tracked, fake_wandb, capsys):
    made = fake_wandb()

    def collect():
        raise UserError("cat.jpg: cannot be read as an image")
    Trackers(tracked(mode="offline")).finish({"test/accuracy": 0.5}, status=0, collect_examples=collect)
    assert (made.rows, made.summary, made.status) == ([], {"test/accuracy": 0.5}, 0)
    assert "cat.jpg: cannot be read as an image" in capsys.readouterr().err


@pytest.mark.parametrize(("settings", "status", "sent"), [
    ({"mode": "online"}, 0, True), ({"mode": "online"}, 1, False), ({"mode": "offline"}, 0, False),
    ({"mode": "online", "weights": False}, 0, False)])
def test_the_weights_of_a_finished_run_are_sent_online(tracked, fake_wandb, monkeypatch, settings, status, sent):
    made = fake_wandb()
    monkeypatch.setenv("WANDB_API_KEY", DUMMY_KEY)
    here = tracked(**settings)
    here.best_weights.write_bytes(b"weights")
    Trackers(here).finish({}, status=status)
    assert [(artifact.name, artifact.type, list(artifact.manifest.entries)) for artifact in made.artifacts] == (
        [(here.name, "model", ["best.safetensors"])] if sent else [])
    assert made.status == status


def test_weights_that_were_not_sent_are_told_with_the_command_that_sends_them(tracked, fake_wandb, monkeypatch, capsys):
    made = fake_wandb("log_artifact")
    monkeypatch.setenv("WANDB_API_KEY", DUMMY_KEY)
    here = tracked(mode="online")
    here.best_weights.write_bytes(b"weights")
    Trackers(here).finish({}, status=0)
    assert made.status == 0
    assert (f"the weights were not sent within 15 s (log_artifact is broken); `wandb artifact put --name "
            f"lightning-keras-template/{here.name} --type model {here.best_weights}` sends them;") in (
                capsys.readouterr().err)


def test_a_picture_that_cannot_be_sent_does_not_keep_a_run_from_ending(tracked, fake_wandb, tmp_path, capsys):
    made = fake_wandb()
    Trackers(tracked(mode="offline")).finish({"test/accuracy": 0.5}, status=0, pictures=[tmp_path / "gone.png"])
    assert (made.rows, made.summary, made.status) == ([], {"test/accuracy": 0.5}, 0)
    assert "gone.png" in capsys.readouterr().err


# Failures

@pytest.mark.parametrize("failing", ["init", "define_metric", "log", "finish"])
def test_a_failing_wandb_stops_nothing_and_is_told_once(tracked, fake_wandb, capsys, failing):
    made = fake_wandb(failing)
    tracker = Trackers(tracked(mode="offline"))
    tracker.log(ROW)
    tracker.log(ROW)
    tracker.finish({"test/accuracy": 0.5}, status=0)
    tracker.finish(None, status=1)
    assert capsys.readouterr().err == (f"Weights & Biases failed and is left out from here on: {failing} is broken; "
                                       "metrics.jsonl has everything\n")
    assert len(made.rows) == (2 if failing == "finish" else 0)


def test_where_the_server_fails_the_run_goes_on_offline_and_says_so_once(tracked, fake_wandb, capsys, monkeypatch):
    import wandb

    made = fake_wandb()
    made.settings = types.SimpleNamespace(sync_dir="wandb/offline-run-1")
    answering, modes = wandb.init, []

    def init(**words):
        modes.append(words["mode"])
        if words["mode"] == "online":
            raise RuntimeError("no answer\nand a second line")
        return answering(**words)
    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setenv("WANDB_API_KEY", DUMMY_KEY)
    tracker = Trackers(tracked(mode="online"))
    tracker.log(ROW)
    tracker.finish({}, status=0)
    assert modes == ["online", "offline"]
    assert made.words["resume"] == "allow"  # what the server has got before is to stay
    assert (made.rows, made.status) == ([ROW], 0)
    assert capsys.readouterr().err == (
        "Weights & Biases cannot be reached (no answer), so nothing is sent while this run goes on; it is kept "
        "offline: `wandb sync wandb/offline-run-1` sends it later\n")


def test_what_could_not_be_sent_in_time_is_told_with_its_command(tracked, fake_wandb, capsys, monkeypatch):
    made = fake_wandb()
    made.settings = types.SimpleNamespace(sync_dir="wandb/run-1")

    def finish(exit_code):
        raise TimeoutError("Timed out finishing run.")
    monkeypatch.setattr(made, "finish", finish)
    Trackers(tracked(mode="offline")).finish({}, status=0)
    assert "not everything was sent within 15 s, `wandb sync wandb/run-1` sends the rest;" in capsys.readouterr().err


def test_wandbs_log_files_are_quiet_where_they_cannot_be_written(tracked, fake_wandb):
    handler = logging.StreamHandler()
    logging.getLogger("wandb").addHandler(handler)
    try:
        fake_wandb()
        Trackers(tracked(mode="offline"))
        assert handler.handleError(None) is None  # Python's own prints a traceback
        assert "handleError" in vars(handler)
    finally:
        logging.getLogger("wandb").removeHandler(handler)


@pytest.mark.parametrize("failing", ["Writer", "add_scalar", "close"])
def test_a_failing_tensorboard_stops_nothing_and_is_told_once(tracked, fake_wandb, capsys, monkeypatch, failing):
    made = fake_wandb()

    class Writer:
        def __init__(self, folder):
            self.check("Writer")

        def check(self, name):
            if name == failing:
                raise OSError(28, "No space left on device")

        def add_scalar(self, name, value, step):
            self.check("add_scalar")

        def flush(self):
            pass

        def close(self):
            self.check("close")
    monkeypatch.setitem(sys.modules, "tensorboard.summary", types.SimpleNamespace(Writer=Writer))
    tracker = Trackers(tracked(mode="offline", tensorboard=True))
    tracker.log(ROW)
    tracker.log(ROW)
    tracker.finish({}, status=0)
    told = capsys.readouterr().err
    assert told.startswith("TensorBoard failed and is left out from here on: [Errno 28] No space left on device")
    assert len(told.splitlines()) == 1
    assert made.rows == [ROW, ROW]  # the other one goes on


def test_a_run_that_has_finished_is_not_marked_as_failed_later(tracked, fake_wandb):
    made = fake_wandb()
    tracker = Trackers(tracked(mode="offline"))
    tracker.finish({}, status=0)
    tracker.finish(None, status=1)
    assert made.status == 0
