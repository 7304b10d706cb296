"""What is chosen for the machine: accelerator, devices, precision, readers."""

from pathlib import Path

import pytest

from shared.errors import UserError
from shared.machine import hardware, versions


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
        hardware.choose_precision("fp16", "cpu", gpu_has_bf16=True, depthwise=False)


@pytest.mark.parametrize(("wanted", "accelerator", "gpu", "cpu", "depthwise", "expected"), [
    ("auto", "gpu", True, False, False, "bf16"), ("auto", "gpu", False, True, False, "fp32"),
    ("auto", "gpu", True, False, True, "bf16"), ("auto", "cpu", True, False, False, "fp32"),
    ("auto", "cpu", False, True, False, "bf16"), ("auto", "cpu", False, True, True, "fp32"),
    ("fp32", "gpu", True, True, False, "fp32"), ("fp16", "gpu", True, True, False, "fp16"),
    ("bf16", "cpu", False, False, True, "bf16"), ("fp64", "cpu", False, True, False, "fp64")])
def test_the_precision(monkeypatch, wanted, accelerator, gpu, cpu, depthwise, expected):
    monkeypatch.setattr(hardware, "cpu_has_bf16", lambda: cpu)
    assert hardware.choose_precision(wanted, accelerator, gpu, depthwise) == expected


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
