"""Which run is gone on with, from which checkpoint, and what may not have changed meanwhile."""

import errno
import json
from pathlib import Path

import pytest

from shared.config import Config
from shared.errors import UserError
from shared.machine.files import find_last_checkpoint
from shared.runs.folder import RunFolder, explain_bad_checkpoint, write_checkpoint


@pytest.fixture
def config(tmp_path):
    return Config(output_dir=str(tmp_path / "runs"), experiment="made")


def trained(config, framework="keras", stamp=None):
    """A run with a checkpoint."""
    run = RunFolder.start(Config(output_dir=config.output_dir, experiment="made", seed=config.seed), framework)
    (run.checkpoints / "last.safetensors").touch()
    run.write_record()
    if stamp:
        run.folder = run.folder.rename(run.folder.with_name(f"{framework}_seed{config.seed}_{stamp}"))
    return run


def test_auto_goes_on_with_the_newest_unfinished_run_of_this_sibling_and_seed(config):
    trained(config, "keras", "20260101-000000")
    newest = trained(config, "keras", "20260103-000000")
    (trained(config, "keras", "20260104-000000").folder / "result.json").touch()    # finished
    (trained(config, "keras", "20260102-000000").folder / "checkpoints" / "last.safetensors").unlink()
    trained(config, "lightning", "20260106-000000")
    trained(Config(output_dir=config.output_dir, seed=11), "keras", "20260107-000000")
    config.resume = "auto"
    run = RunFolder.start(config, "keras")
    assert run.folder == newest.folder
    assert run.resumed
    assert run.find_last_checkpoint() == newest.folder / "checkpoints" / "last.safetensors"


def test_auto_without_an_unfinished_run_makes_a_new_one(config):
    config.resume = "auto"
    assert not RunFolder.start(config, "keras").resumed


def test_a_checkpoint_whose_writing_was_cut_off_is_none(config):
    run = RunFolder.start(config, "keras")
    (run.checkpoints / "last.safetensors.unfinished").touch()
    assert find_last_checkpoint(run.folder) is None
    (run.checkpoints / "previous.safetensors").touch()
    assert find_last_checkpoint(run.folder) == run.checkpoints / "previous.safetensors"
    (run.checkpoints / "last.safetensors").touch()
    assert find_last_checkpoint(run.folder) == run.checkpoints / "last.safetensors"


def test_a_run_that_was_cut_off_before_its_first_checkpoint_begins_anew_in_its_folder(config):
    run = RunFolder.start(config, "keras")
    config.resume = "auto"
    again = RunFolder.start(config, "keras")
    assert again.folder == run.folder
    assert again.resumed
    assert again.find_last_checkpoint() is None
    again.write_record(device="one")  # though the first was cut off before it wrote run.json
    assert json.loads((run.folder / "run.json").read_text())["device"] == "one"


def test_a_checkpoint_takes_the_place_of_the_last_and_keeps_it_as_the_previous(config):
    run = RunFolder.start(config, "keras")
    file = run.checkpoints / "last.safetensors"
    for content in ("one", "two", "three"):
        write_checkpoint(file, lambda path, content=content: path.write_text(content))
    assert {path.name: path.read_text() for path in run.checkpoints.iterdir()} \
        == {"last.safetensors": "three", "previous.safetensors": "two"}


def test_a_checkpoint_that_cannot_be_written_leaves_the_ones_before_it(config):
    run = RunFolder.start(config, "keras")
    file = run.checkpoints / "last.safetensors"
    write_checkpoint(file, lambda path: path.write_text("whole"))

    def full(path: Path) -> None:
        path.write_text("ha", encoding="utf-8")
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(UserError, match=r"last.safetensors cannot be written .No space left on device.; what was"):
        write_checkpoint(file, full)
    assert [path.name for path in run.checkpoints.iterdir()] == ["last.safetensors"]
    assert file.read_text() == "whole"


def test_a_refused_checkpoint_names_the_one_before_it_where_there_is_one(tmp_path):
    last = tmp_path / "last.ckpt"
    assert "init_from=" in str(explain_bad_checkpoint(last, "cut short"))
    last.with_stem("previous").touch()
    assert "delete it to go on from previous.ckpt" in str(explain_bad_checkpoint(last, "cut short"))


def test_the_leader_tells_the_others_its_folder(config):
    told = []

    def agree(text: str) -> str:
        told.append(text) if text else None
        return told[0] if told else ""
    leader = RunFolder.start_together(config, "keras", leader=True, broadcast=agree)
    other = RunFolder.start_together(config, "keras", leader=False, broadcast=agree)
    assert other.folder == leader.folder.absolute()
    assert (leader.leader, other.leader, other.resumed) == (True, False, False)
    other.write_record(device="two")
    assert not (leader.folder / "run.json").exists()  # the leader alone writes


def test_the_others_leave_where_the_leader_failed(config):
    config.resume = config.output_dir
    with pytest.raises(UserError, match="no checkpoint"):
        RunFolder.start_together(config, "keras", leader=True, broadcast=lambda text: text)
    with pytest.raises(SystemExit) as left:
        RunFolder.start_together(config, "keras", leader=False, broadcast=lambda text: text)
    assert left.value.code == 2


def test_a_named_run_goes_on_under_its_name(config, monkeypatch):
    old = trained(config)
    config.resume = str(old.folder)
    assert RunFolder.start(config, "keras").name == old.name
    monkeypatch.chdir(old.folder)
    config.resume = "."
    assert RunFolder.start(config, "keras").name == old.name  # and so its W&B id


def test_a_resumed_run_keeps_when_and_from_what_it_started(config):
    old = trained(config)
    old.write_record(fingerprints={"order": "first", "initial_weights": "1"}, device="one")
    config.resume = str(old.folder)
    started = json.loads((old.folder / "run.json").read_text())["started"]
    RunFolder.start(config, "keras").write_record(fingerprints={"order": "first", "initial_weights": "2"}, device="two")
    after = json.loads((old.folder / "run.json").read_text())
    assert after["fingerprints"] == {"order": "first", "initial_weights": "1"}
    assert after["device"] == "two"
    assert after["started"] == started


def test_a_run_goes_on_with_a_test_image_that_was_repaired_or_left_out(config, capsys):
    old = trained(config)
    facts = {"fingerprints": {"split": "1", "data": "1", "test": "1"}, "sizes": {"train": 5, "test": 3}}
    old.write_record(**facts)
    config.resume, config.dataset.on_bad_image = str(old.folder), "skip"
    now = {"fingerprints": {"split": "1", "data": "2", "test": "2"}, "sizes": {"train": 5, "test": 2}}
    RunFolder.start(config, "keras").write_record(**now)
    after = json.loads((old.folder / "run.json").read_text())
    assert {name: after[name] for name in now} == now  # what `compare` tells runs apart by
    assert "files of the data set are no longer quite those that this run began with" in capsys.readouterr().err


@pytest.mark.parametrize("change", [{"fingerprints": {"order": "second"}}, {"sizes": {"train": 2}}, {"classes": ["b"]}])
def test_a_run_is_not_resumed_with_other_images_or_batches(config, change):
    old = trained(config)
    facts = {"fingerprints": {"order": "first"}, "sizes": {"train": 1}, "classes": ["a"]}
    old.write_record(**facts)
    before = (old.folder / "run.json").read_bytes()
    config.resume = str(old.folder)
    with pytest.raises(UserError, match="began with another"):
        RunFolder.start(config, "keras").write_record(**facts | change)
    config.train.batch_size += 1
    with pytest.raises(UserError, match="began with another global_batch"):
        RunFolder.start(config, "keras").write_record(**facts)
    assert (old.folder / "run.json").read_bytes() == before


def test_a_run_is_not_resumed_as_another_experiment(config):
    old = trained(config)
    old.write_record()
    kept = (old.folder / "config.yaml").read_text()
    assert "resume: none" in kept
    config.resume, config.train.epochs, config.hardware.devices, config.train.accumulate = str(old.folder), 99, 2, 4
    config.optimizer.lr, config.train.early_stopping_patience = 0.5, 3
    with pytest.raises(UserError, match=r"began with another optimizer\.lr, train\.early_stopping_patience; resume it"):
        RunFolder.start(config, "keras").write_record()
    assert (old.folder / "config.yaml").read_text() == kept
    config.optimizer.lr, config.train.early_stopping_patience = 0.02, 0
    RunFolder.start(config, "keras").write_record()
    assert "epochs: 99" in (old.folder / "config.yaml").read_text()


@pytest.mark.parametrize(("damage", "framework", "hint"), [
    (lambda run: (run.folder / "config.yaml").unlink(), "keras", "no checkpoint and no config.yaml there"),
    (lambda run: None, "lightning", "is a run of the other sibling; start from its weights with init_from="),
    (lambda run: (run.folder / "run.json").write_text("{"), "keras", "run.json: not valid JSON"),
    (lambda run: (run.folder / "run.json").unlink(), "keras", "run.json: cannot be read: No such file"),
])
def test_what_cannot_be_resumed_is_told(config, damage, framework, hint):
    old = trained(config)
    damage(old)
    config.resume = str(old.folder)
    with pytest.raises(UserError, match=hint):
        RunFolder.start(config, framework)
