"""Weights & Biases and TensorBoard: what they are told, never asking, never stopping a training."""

import logging
import sys
import types
from unittest import mock

import pytest
from PIL import Image

from shared.config import Config
from shared.errors import UserError
from shared.runs.folder import RunFolder
from shared.training.examples import Example
from shared.training.trackers import Trackers
from tests.wandb_faults import DUMMY_KEY

pytestmark = pytest.mark.usefixtures("nobody")
ROW = {"samples": 64, "epoch": 0.5, "time/train_s": 1.25, "train/loss": 2.0, "lr": 0.1}


@pytest.fixture
def run(tmp_path):
    def make(**settings):
        config = Config(output_dir=str(tmp_path / "runs"), experiment="made")
        for name, value in settings.items():
            setattr(config.tracking, name, value)
        return RunFolder.start(config, "keras")
    return make


class FakeRun:
    """Remembers what W&B is told, and raises at the calls that `failing` names."""

    def __init__(self, failing=()):
        self.failing, self.rows, self.axes, self.status, self.summary = failing, [], [], None, {}
        self.artifacts = []

    def check(self, name):
        if name in self.failing:
            raise RuntimeError(f"{name} is broken\nand a second line")

    def define_metric(self, *names, **settings):
        self.check("define_metric")
        self.axes.append((names, settings))

    def log(self, row):
        self.check("log")
        self.rows.append(row)

    def log_artifact(self, artifact):
        self.check("log_artifact")
        self.artifacts.append(artifact)
        return mock.Mock()

    def finish(self, exit_code):
        self.check("finish")
        self.status = exit_code


@pytest.fixture
def fake(monkeypatch):
    def install(*failing):
        made = FakeRun(failing)

        import wandb  # not above: a folder wandb/ of runs would make ruff sort it with ours

        def init(**words):
            made.words = words
            made.check("init")
            return made
        monkeypatch.setattr(wandb, "init", init)
        return made
    return install


# What W&B is told

def test_both_siblings_are_one_group_with_the_same_axes(run, fake):
    made = fake()
    here = run(mode="offline", tags=["mine"], project="other")
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


def test_pictures_are_logged_by_their_names(run, fake, tmp_path):
    import wandb

    made = fake()
    Image.new("L", (2, 2)).save(tmp_path / "confusion.png")
    Trackers(run(mode="offline")).finish({}, status=0, pictures=[tmp_path / "confusion.png"])
    [row] = made.rows
    assert row.keys() == {"test/confusion"}
    assert isinstance(row["test/confusion"], wandb.Image)
    assert made.status == 0


EXAMPLES = [Example(Image.new("RGB", (2, 2)), 5, "cat", "dog", False, 0.5)]


def test_examples_are_logged_as_a_table_with_their_images(run, fake):
    import wandb

    made = fake()
    Trackers(run(mode="offline")).finish({}, status=0, collect_examples=lambda: EXAMPLES)
    [row] = made.rows
    table = row["test/predictions"]
    assert table.columns == ["image", "number", "label", "answer", "is_right", "probability"]
    [[image, *rest]] = table.data
    assert isinstance(image, wandb.Image)
    assert rest == [5, "cat", "dog", False, 0.5]


def test_examples_that_cannot_be_read_do_not_keep_a_run_from_ending(run, fake, capsys):
    made = fake()

    def collect():
        raise UserError("cat.jpg: cannot be read as an image")
    Trackers(run(mode="offline")).finish({"test/accuracy": 0.5}, status=0, collect_examples=collect)
    assert (made.rows, made.summary, made.status) == ([], {"test/accuracy": 0.5}, 0)
    assert "cat.jpg: cannot be read as an image" in capsys.readouterr().err


@pytest.mark.parametrize(("settings", "status", "sent"), [
    ({"mode": "online"}, 0, True), ({"mode": "online"}, 1, False), ({"mode": "offline"}, 0, False),
    ({"mode": "online", "weights": False}, 0, False)])
def test_the_weights_of_a_finished_run_are_sent_online(run, fake, monkeypatch, settings, status, sent):
    made = fake()
    monkeypatch.setenv("WANDB_API_KEY", DUMMY_KEY)
    here = run(**settings)
    here.best_weights.write_bytes(b"weights")
    Trackers(here).finish({}, status=status)
    assert [(artifact.name, artifact.type, list(artifact.manifest.entries)) for artifact in made.artifacts] == (
        [(here.name, "model", ["best.safetensors"])] if sent else [])
    assert made.status == status


def test_weights_that_were_not_sent_are_told_with_the_command_that_sends_them(run, fake, monkeypatch, capsys):
    made = fake("log_artifact")
    monkeypatch.setenv("WANDB_API_KEY", DUMMY_KEY)
    here = run(mode="online")
    here.best_weights.write_bytes(b"weights")
    Trackers(here).finish({}, status=0)
    assert made.status == 0
    assert (f"the weights were not sent within 15 s (log_artifact is broken); `wandb artifact put --name "
            f"lightning-keras-template/{here.name} --type model {here.best_weights}` sends them;") in (
                capsys.readouterr().err)


def test_a_picture_that_cannot_be_sent_does_not_keep_a_run_from_ending(run, fake, tmp_path, capsys):
    made = fake()
    Trackers(run(mode="offline")).finish({"test/accuracy": 0.5}, status=0, pictures=[tmp_path / "gone.png"])
    assert (made.rows, made.summary, made.status) == ([], {"test/accuracy": 0.5}, 0)
    assert "gone.png" in capsys.readouterr().err


@pytest.mark.parametrize(("setting", "variable", "key", "expected"), [
    ("auto", None, False, "offline"), ("auto", None, True, "online"), ("auto", "offline", True, "offline"),
    ("auto", "disabled", True, None), ("auto", "", False, "offline"), ("auto", "online", True, "online"),
    ("offline", "disabled", True, "offline"), ("disabled", "online", True, None), ("online", "offline", True, "online"),
])
def test_the_mode(run, fake, monkeypatch, setting, variable, key, expected):
    made = fake()
    made.words = {"mode": None}
    if variable is not None:
        monkeypatch.setenv("WANDB_MODE", variable)
    if key:
        monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    Trackers(run(mode=setting))
    assert made.words["mode"] == expected
    assert made.words.get("resume") == (None if expected is None else "allow")


@pytest.mark.parametrize("value", ["true", "True", "1", "yes", "on"])
def test_wandb_disabled_writes_no_run(run, fake, monkeypatch, value):
    made = fake()
    made.words = None
    monkeypatch.setenv("WANDB_DISABLED", value)
    monkeypatch.setenv("WANDB_API_KEY", DUMMY_KEY)
    monkeypatch.setenv("WANDB_MODE", "online")  # of two wishes the one that sends nothing
    assert Trackers(run()).active == {}
    assert made.words is None
    Trackers(run(mode="offline"))  # the key of this experiment stands above what holds at large
    assert made.words["mode"] == "offline"


@pytest.mark.parametrize("value", ["", "false", "0", "no", "off"])
def test_wandb_disabled_may_say_that_it_is_not(run, fake, monkeypatch, value):
    made = fake()
    monkeypatch.setenv("WANDB_DISABLED", value)
    Trackers(run())
    assert made.words["mode"] == "offline"


@pytest.mark.parametrize(("variable", "expected"), [
    ("dryrun", "offline"), ("run", "online"), ("shared", "online"), ("Disabled", None), (" offline ", "offline"),
    ("auto", "online")])
def test_other_names_of_modes(run, fake, monkeypatch, variable, expected):
    made = fake()
    made.words = {"mode": None}
    monkeypatch.setenv("WANDB_MODE", variable)
    monkeypatch.setenv("WANDB_API_KEY", DUMMY_KEY)
    Trackers(run())
    assert made.words["mode"] == expected


@pytest.mark.parametrize("place", ["wandb", ".wandb", "elsewhere/wandb", "home/.config/wandb", "given"])
@pytest.mark.parametrize(("mode", "expected"), [("disabled", None), ("offline", "offline"), ("dryrun", "offline"),
                                                ("online", "online")])
def test_what_wandb_has_written_into_its_settings_file_holds(run, fake, monkeypatch, tmp_path, place, mode, expected):
    made = fake()
    made.words = {"mode": None}
    monkeypatch.setenv("WANDB_API_KEY", DUMMY_KEY)
    if place == "elsewhere/wandb":
        monkeypatch.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    if place == "given":
        monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "given"))
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "settings").write_text(f"[default]\nmode = {mode}\n\n")
    Trackers(run())
    assert made.words["mode"] == expected


def test_the_settings_file_of_the_folder_counts_most_and_a_damaged_one_nothing(run, fake, nobody, tmp_path):
    made = fake()
    for folder, mode in (("home/.config/wandb", "disabled"), ("wandb", "offline")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "settings").write_text(f"[default]\nmode = {mode}\n")
    Trackers(run())
    assert made.words["mode"] == "offline"
    (tmp_path / "wandb" / "settings").write_bytes(b"\xff no section")
    made.words = None
    assert Trackers(run()).active == {}
    assert made.words is None


@pytest.mark.parametrize("variable", [None, "online"])
def test_online_without_a_key_is_told_and_never_asked_for(run, fake, capsys, monkeypatch, variable):
    made = fake()
    made.words = None
    if variable:
        monkeypatch.setenv("WANDB_MODE", variable)
    tracker = Trackers(run(mode="auto" if variable else "online"))
    assert made.words is None
    assert tracker.active == {}
    assert "no API key is configured; run `wandb login`" in capsys.readouterr().err


# Failures

@pytest.mark.parametrize("failing", ["init", "define_metric", "log", "finish"])
def test_a_failing_wandb_stops_nothing_and_is_told_once(run, fake, capsys, failing):
    made = fake(failing)
    tracker = Trackers(run(mode="offline"))
    tracker.log(ROW)
    tracker.log(ROW)
    tracker.finish({"test/accuracy": 0.5}, status=0)
    tracker.finish(None, status=1)
    assert capsys.readouterr().err == (f"Weights & Biases failed and is left out from here on: {failing} is broken; "
                                       "metrics.jsonl has everything\n")
    assert len(made.rows) == (2 if failing == "finish" else 0)


def test_where_the_server_fails_the_run_goes_on_offline_and_says_so_once(run, fake, capsys, monkeypatch):
    import wandb

    made = fake()
    made.settings = types.SimpleNamespace(sync_dir="wandb/offline-run-1")
    answering, modes = wandb.init, []

    def init(**words):
        modes.append(words["mode"])
        if words["mode"] == "online":
            raise RuntimeError("no answer\nand a second line")
        return answering(**words)
    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setenv("WANDB_API_KEY", DUMMY_KEY)
    tracker = Trackers(run(mode="online"))
    tracker.log(ROW)
    tracker.finish({}, status=0)
    assert modes == ["online", "offline"]
    assert made.words["resume"] == "allow"  # what the server has got before is to stay
    assert (made.rows, made.status) == ([ROW], 0)
    assert capsys.readouterr().err == (
        "Weights & Biases cannot be reached (no answer), so nothing is sent while this run goes on; it is kept "
        "offline: `wandb sync wandb/offline-run-1` sends it later\n")


def test_what_could_not_be_sent_in_time_is_told_with_the_command_that_sends_it(run, fake, capsys, monkeypatch):
    made = fake()
    made.settings = types.SimpleNamespace(sync_dir="wandb/run-1")

    def finish(exit_code):
        raise TimeoutError("Timed out finishing run.")
    monkeypatch.setattr(made, "finish", finish)
    Trackers(run(mode="offline")).finish({}, status=0)
    assert "not everything was sent within 15 s, `wandb sync wandb/run-1` sends the rest;" in capsys.readouterr().err


def test_wandbs_log_files_are_quiet_where_they_cannot_be_written(run, fake):
    handler = logging.StreamHandler()
    logging.getLogger("wandb").addHandler(handler)
    try:
        fake()
        Trackers(run(mode="offline"))
        assert handler.handleError(None) is None  # Python's own prints a traceback
        assert "handleError" in vars(handler)
    finally:
        logging.getLogger("wandb").removeHandler(handler)


@pytest.mark.parametrize("failing", ["Writer", "add_scalar", "close"])
def test_a_failing_tensorboard_stops_nothing_and_is_told_once(run, fake, capsys, monkeypatch, failing):
    made = fake()

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
    tracker = Trackers(run(mode="offline", tensorboard=True))
    tracker.log(ROW)
    tracker.log(ROW)
    tracker.finish({}, status=0)
    told = capsys.readouterr().err
    assert told.startswith("TensorBoard failed and is left out from here on: [Errno 28] No space left on device")
    assert len(told.splitlines()) == 1
    assert made.rows == [ROW, ROW]  # the other one goes on


def test_a_run_that_has_finished_is_not_marked_as_failed_later(run, fake):
    made = fake()
    tracker = Trackers(run(mode="offline"))
    tracker.finish({}, status=0)
    tracker.finish(None, status=1)
    assert made.status == 0
