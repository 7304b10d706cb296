"""The fairness gate: which runs are the same experiment."""


import numpy as np
import pytest

from shared.compare.facts import list_notes
from shared.compare.verdict import find_differences
from shared.runs.records import read_run
from tests.shared.run_folders import make_run, predictions


def differences(folders, **options):
    return find_differences([read_run(folder) for folder in folders], **options)


def test_same_experiment(pair):
    assert differences(pair) == []


@pytest.mark.parametrize(("key", "value"), [
    ("output_dir", "elsewhere"), ("resume", "auto"), ("tracking.mode", "disabled"), ("tracking.tags", ["x"]),
    ("hardware.workers", 3), ("hardware.threads", 1), ("debug.profile", True), ("dataset.root", "/data"),
    ("model.gradient_checkpointing", True), ("hardware.devices", 2), ("hardware.num_nodes", 2),
    ("hardware.strategy", "data_parallel"), ("hardware.steps_per_execution", 5), ("train.checkpoint_every_steps", 7)])
def test_incidental_keys_do_not_matter(tmp_path, key, value):
    assert differences([make_run(tmp_path), make_run(tmp_path, "keras", config={key: value})]) == []


@pytest.mark.parametrize(("key", "value", "line"), [
    ("optimizer.lr", 0.1, "optimizer.lr: lightning=0.02 keras=0.1"),
    ("hardware.precision", "fp32", "hardware.precision: lightning=auto keras=fp32"),
    ("augment.flip", True, "augment.flip: lightning=false keras=true"),
    ("init_from", "x.safetensors", "init_from: lightning='' keras=x.safetensors"),
    ("debug.limit_batches", 2, "debug.limit_batches: lightning=0 keras=2")])
def test_config_decides(tmp_path, key, value, line):
    assert differences([make_run(tmp_path), make_run(tmp_path, "keras", config={key: value})]) == [line]


@pytest.mark.parametrize(("record", "line"), [
    *(({"fingerprints": {name: "other"}}, f"fingerprints.{name}: lightning={ours} keras=other") for name, ours in
      (("data", "d0"), ("split", "s0"), ("test", "t0"), ("order", "o0"), ("initial_weights", "w0"))),
    ({"precision": "fp32"}, "precision: lightning=bf16 keras=fp32"),
    ({"tf32": True}, "tf32: lightning=false keras=true"),
    ({"device": "a GPU"}, "device: lightning=a processor, 2 threads (cpu) keras=a GPU"),
    ({"global_batch": 32}, "global_batch: lightning=64 keras=32"),
    ({"steps_per_epoch": 21}, "steps_per_epoch: lightning=20 keras=21"),
    ({"epochs": 5}, "epochs: lightning=4 keras=5"),
    ({"sizes": {"test": 49}}, "sizes.test: lightning=50 keras=49"),
    ({"classes": ["cat"]}, "classes: lightning=[10: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9] keras=[1: cat]")])
def test_record_decides(tmp_path, record, line):
    assert differences([make_run(tmp_path), make_run(tmp_path, "keras", record=record)]) == [line]


def test_what_nobody_recorded_does_not_agree(tmp_path):
    folders = [make_run(tmp_path, framework, record={"fingerprints": {"order": None}})
               for framework in ("lightning", "keras")]
    assert differences(folders) == ["fingerprints.order: not recorded, so nobody can say that it agrees"]


def test_other_test_images_are_another_experiment(pair):
    np.savez_compressed(pair[1] / "predictions.npz", **predictions((0,), index=np.arange(50)[::-1]))
    (line,) = differences(pair)
    assert line.startswith("predictions (index and label): lightning=")


def test_unfinished_run_can_be_the_same_experiment(tmp_path):
    assert differences([make_run(tmp_path), make_run(tmp_path, "keras", finished=False)]) == []


def test_seeds_differ_unless_runs_pair_by_seed(tmp_path):
    folders = [make_run(tmp_path, framework, seed) for seed in (0, 1) for framework in ("lightning", "keras")]
    assert [line.partition(":")[0] for line in differences(folders)] == [
        "seed", "fingerprints.split", "fingerprints.order", "fingerprints.initial_weights"]
    assert differences(folders, up_to_seed=True) == []


def test_pairs_are_held_to_their_own_seed(tmp_path):
    folders = [make_run(tmp_path, framework, seed,
                        record={"fingerprints": {"order": "o0"}} if (framework, seed) == ("keras", 1) else None)
               for seed in (0, 1) for framework in ("lightning", "keras")]
    assert differences(folders, up_to_seed=True) == ["seed 1: fingerprints.order: lightning=o1 keras=o0"]


def test_runs_of_one_sibling_are_told_by_name(tmp_path):
    folders = [make_run(tmp_path), make_run(tmp_path, stamp="20260101-130000", config={"optimizer.lr": 0.1})]
    assert differences(folders) == ["optimizer.lr: 0.02; 0.1"]  # they are called lightning optimizer.lr=0.02 and so on
    folders = [make_run(tmp_path, stamp=f"20260101-1{hour}0000", record={"devices": hour}, config={
        "hardware.sync_batchnorm": False}) for hour in (4, 5)]
    assert differences(folders) == [f"devices: 4 in {folders[0].name}; 5 in {folders[1].name}"]


def test_where_devices_normalise_their_own_shares_their_number_decides(tmp_path):
    folders = [make_run(tmp_path, framework, config={"hardware.sync_batchnorm": False}, record={"devices": devices})
               for framework, devices in (("lightning", 1), ("keras", 2))]
    assert differences(folders) == ["devices: lightning=1 keras=2"]


def test_a_run_from_before_a_key_was_there_had_its_default(pair):
    lines = (pair[0] / "config.yaml").read_text().splitlines()
    kept = [line for line in lines if line.strip().partition(":")[0] not in ("balance", "loss", "class_weights",
                                                                            "focal_gamma", "monitor_mode")]
    assert len(kept) == len(lines) - 5
    (pair[0] / "config.yaml").write_text("\n".join(kept))
    assert differences(pair) == []


@pytest.mark.parametrize(("name", "value", "counts"), [
    ("NVIDIA_TF32_OVERRIDE", "0", True), ("ONEDNN_DEFAULT_FPMATH_MODE", "BF16", True), ("XLA_FLAGS", "--x", True),
    ("OMP_NUM_THREADS", "1", False), ("CUDA_VISIBLE_DEVICES", "1", False), ("TF_NUM_INTRAOP_THREADS", "2", False)])
def test_variables_that_change_numbers_decide_and_those_of_speed_are_a_note(tmp_path, name, value, counts):
    folders = [make_run(tmp_path), make_run(tmp_path, "keras", record={"environment": {name: value}})]
    told = f"environment.{name}: lightning=- keras={value}"
    assert differences(folders) == ([told] if counts else [])
    notes = list_notes([read_run(folder) for folder in folders])
    assert (f"Speed is of different settings ({told})." in notes) == (not counts)
