"""The run folder: made once, found again, written whole."""

import datetime
import errno
import json
import math
from pathlib import Path

import numpy as np
import pytest

from shared.config import Config, load_config
from shared.errors import UserError
from shared.machine import hardware, versions
from shared.machine.files import find_last_checkpoint, to_json, write_json, write_whole
from shared.runs import folder
from shared.runs.folder import RunFolder, explain_bad_checkpoint, write_checkpoint


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


def trained(config, framework="keras", stamp=None):
    """A run with a checkpoint."""
    run = RunFolder.start(Config(output_dir=config.output_dir, experiment="made", seed=config.seed), framework)
    (run.checkpoints / "last.safetensors").touch()
    run.write_record()
    if stamp:
        run.folder = run.folder.rename(run.folder.with_name(f"{framework}_seed{config.seed}_{stamp}"))
    return run


# Writing

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
    run.finish(logits, np.arange(3), np.array([0, 1, 0]), {"test/accuracy": 0.5, "test/loss": math.nan})
    with np.load(run.folder / "predictions.npz", allow_pickle=False) as kept:
        assert set(kept) == {"logits", "index", "label"}
        assert np.array_equal(kept["logits"], logits)
    assert json.loads((run.folder / "result.json").read_text()) == {"test/accuracy": 0.5, "test/loss": None}
    assert not list(run.folder.glob("*.unfinished*"))


# Resuming

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
        path.write_text("ha")
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


# The machine

@pytest.mark.parametrize(("wanted", "gpus", "expected"), [
    ("auto", 0, "cpu"), ("auto", 1, "gpu"), ("cpu", 1, "cpu"), ("gpu", 1, "gpu")])
def test_the_accelerator(wanted, gpus, expected):
    assert hardware.choose_accelerator(wanted, gpus) == expected


@pytest.mark.parametrize(("wanted", "expected"), [("auto", "tpu"), ("tpu", "tpu"), ("cpu", "cpu")])
def test_a_tpu_is_taken_where_there_is_one(wanted, expected):
    assert hardware.choose_accelerator(wanted, gpus=0, tpu=True) == expected


def test_signs_of_a_tpu(monkeypatch):
    for name in ("TPU_WORKER_HOSTNAMES", "TPU_CONFIG", "KUBE_GOOGLE_CLOUD_TPU_ENDPOINTS", "TPU_NAME"):
        monkeypatch.delenv(name, raising=False)
    there = hardware.has_tpu()
    assert there == any(any(Path("/dev").glob(name)) for name in ("accel*", "vfio/[0-9]*"))
    monkeypatch.setenv("TPU_NAME", "local")
    assert hardware.has_tpu()


@pytest.mark.parametrize(("wanted", "accelerator", "available", "expected"), [
    (0, "cpu", 0, 1), (3, "cpu", 0, 3), (0, "gpu", 4, 4), (2, "gpu", 4, 2)])
def test_the_devices(wanted, accelerator, available, expected):
    assert hardware.choose_devices(wanted, accelerator, available) == expected


def test_a_missing_device_is_told():
    with pytest.raises(UserError, match="no TPU here"):
        hardware.choose_accelerator("tpu", 1)
    with pytest.raises(UserError, match=r"hardware\.devices=8, but the framework finds 4 of kind gpu"):
        hardware.choose_devices(8, "gpu", 4)


def test_a_missing_gpu_is_told():
    with pytest.raises(UserError, match="finds no GPU"):
        hardware.choose_accelerator("gpu", 0)
    with pytest.raises(UserError, match="fp16 needs a GPU"):
        hardware.choose_precision("fp16", "cpu", gpu_has_bf16=True)


@pytest.mark.parametrize(("wanted", "accelerator", "gpu", "cpu", "expected"), [
    ("auto", "gpu", True, False, "bf16"), ("auto", "gpu", False, True, "fp32"), ("auto", "cpu", True, False, "fp32"),
    ("auto", "cpu", False, True, "bf16"), ("fp32", "gpu", True, True, "fp32"), ("fp16", "gpu", True, True, "fp16"),
    ("bf16", "cpu", False, False, "bf16"), ("fp64", "cpu", False, True, "fp64")])
def test_the_precision(monkeypatch, wanted, accelerator, gpu, cpu, expected):
    monkeypatch.setattr(hardware, "cpu_has_bf16", lambda: cpu)
    assert hardware.choose_precision(wanted, accelerator, gpu) == expected


@pytest.mark.parametrize(("wanted", "from_files", "accelerator", "expected"), [
    (3, False, "cpu", 3), (0, True, "gpu", 0), (-1, False, "cpu", 0), (-1, False, "gpu", 2)])
def test_the_number_of_readers(wanted, from_files, accelerator, expected):
    assert hardware.choose_workers(wanted, from_files, accelerator) == expected


def test_files_are_read_by_at_most_eight():
    assert 1 <= hardware.choose_workers(-1, True, "cpu") <= 8


def test_the_machine_is_described():
    assert "threads" in hardware.describe_cpu()
    assert 0.01 < hardware.measure_peak_memory() < 1000
    assert versions.list_versions()["python"].startswith("3.")
