"""Whether a run is sent to W&B, kept for it, or not written for it: keys, variables and W&B's own settings decide."""

import pytest

from shared.training.trackers import Trackers
from tests.wandb_faults import DUMMY_KEY

pytestmark = pytest.mark.usefixtures("nobody")


@pytest.mark.parametrize(("setting", "variable", "key", "expected"), [
    ("auto", None, False, "offline"), ("auto", None, True, "online"), ("auto", "offline", True, "offline"),
    ("auto", "disabled", True, None), ("auto", "", False, "offline"), ("auto", "online", True, "online"),
    ("offline", "disabled", True, "offline"), ("disabled", "online", True, None), ("online", "offline", True, "online"),
])
def test_the_mode(tracked, fake_wandb, monkeypatch, setting, variable, key, expected):
    made = fake_wandb()
    made.words = {"mode": None}
    if variable is not None:
        monkeypatch.setenv("WANDB_MODE", variable)
    if key:
        monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    Trackers(tracked(mode=setting))
    assert made.words["mode"] == expected
    assert made.words.get("resume") == (None if expected is None else "allow")


@pytest.mark.parametrize("value", ["true", "True", "1", "yes", "on"])
def test_wandb_disabled_writes_no_run(tracked, fake_wandb, monkeypatch, value):
    made = fake_wandb()
    made.words = None
    monkeypatch.setenv("WANDB_DISABLED", value)
    monkeypatch.setenv("WANDB_API_KEY", DUMMY_KEY)
    monkeypatch.setenv("WANDB_MODE", "online")  # of two wishes the one that sends nothing
    assert Trackers(tracked()).active == {}
    assert made.words is None
    Trackers(tracked(mode="offline"))  # the key of this experiment stands above what holds at large
    assert made.words["mode"] == "offline"


@pytest.mark.parametrize("value", ["", "false", "0", "no", "off"])
def test_wandb_disabled_may_say_that_it_is_not(tracked, fake_wandb, monkeypatch, value):
    made = fake_wandb()
    monkeypatch.setenv("WANDB_DISABLED", value)
    Trackers(tracked())
    assert made.words["mode"] == "offline"


@pytest.mark.parametrize(("variable", "expected"), [
    ("dryrun", "offline"), ("run", "online"), ("shared", "online"), ("Disabled", None), (" offline ", "offline"),
    ("auto", "online")])
def test_other_names_of_modes(tracked, fake_wandb, monkeypatch, variable, expected):
    made = fake_wandb()
    made.words = {"mode": None}
    monkeypatch.setenv("WANDB_MODE", variable)
    monkeypatch.setenv("WANDB_API_KEY", DUMMY_KEY)
    Trackers(tracked())
    assert made.words["mode"] == expected


@pytest.mark.parametrize("place", ["wandb", ".wandb", "elsewhere/wandb", "home/.config/wandb", "given"])
@pytest.mark.parametrize(("mode", "expected"), [("disabled", None), ("offline", "offline"), ("dryrun", "offline"),
                                                ("online", "online")])
def test_what_wandb_has_written_into_its_settings_file_holds(tracked, fake_wandb, monkeypatch, tmp_path, place, mode,
                                                             expected):
    made = fake_wandb()
    made.words = {"mode": None}
    monkeypatch.setenv("WANDB_API_KEY", DUMMY_KEY)
    if place == "elsewhere/wandb":
        monkeypatch.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    if place == "given":
        monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "given"))
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "settings").write_text(f"[default]\nmode = {mode}\n\n")
    Trackers(tracked())
    assert made.words["mode"] == expected


def test_the_settings_file_of_the_folder_counts_most_and_a_damaged_one_nothing(tracked, fake_wandb, nobody, tmp_path):
    made = fake_wandb()
    for folder, mode in (("home/.config/wandb", "disabled"), ("wandb", "offline")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "settings").write_text(f"[default]\nmode = {mode}\n")
    Trackers(tracked())
    assert made.words["mode"] == "offline"
    (tmp_path / "wandb" / "settings").write_bytes(b"\xff no section")
    made.words = None
    assert Trackers(tracked()).active == {}
    assert made.words is None


@pytest.mark.parametrize("variable", [None, "online"])
def test_online_without_a_key_is_told_and_never_asked_for(tracked, fake_wandb, capsys, monkeypatch, variable):
    made = fake_wandb()
    made.words = None
    if variable:
        monkeypatch.setenv("WANDB_MODE", variable)
    tracker = Trackers(tracked(mode="auto" if variable else "online"))
    assert made.words is None
    assert tracker.active == {}
    assert "no API key is configured; run `wandb login`" in capsys.readouterr().err
