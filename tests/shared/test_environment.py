"""Environment variables that reach into frameworks, what C++ code prints at its start, waits that are told."""

import os
import subprocess
import sys
import time

import pytest

from shared.errors import UserError
from shared.machine import console, environment, hardware
from shared.machine.files import REPOSITORY


@pytest.mark.parametrize(("name", "numbers", "speed"), [
    ("TF_ENABLE_ONEDNN_OPTS", True, False), ("NVIDIA_TF32_OVERRIDE", True, False), ("XLA_FLAGS", True, False),
    ("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", True, False), ("ONEDNN_DEFAULT_FPMATH_MODE", True, False),
    ("MKL_CBWR", True, False), ("ATEN_CPU_CAPABILITY", True, False), ("TF_DETERMINISTIC_OPS", True, False),
    ("OMP_NUM_THREADS", False, True), ("MKL_NUM_THREADS", False, True), ("TF_NUM_INTRAOP_THREADS", False, True),
    ("CUDA_VISIBLE_DEVICES", False, True), ("LD_PRELOAD", False, True), ("HOME", False, False),
    ("TF_CLI_CONFIG_FILE", False, False), ("PATH", False, False)])  # the last but one is Terraform's
def test_which_variables_change_what(name, numbers, speed):
    assert (environment.changes_numbers(name), environment.is_of_speed(name)) == (numbers, speed)


def test_what_is_recorded_is_what_was_set_when_the_process_began():
    program = "import os; os.environ['XLA_FLAGS'] = 'x'; from shared.machine.environment import AT_START; " \
              "os.environ['TF_XLA_FLAGS'] = 'later'; print(AT_START)"
    clean = {name: value for name, value in os.environ.items()
             if not name.startswith(environment.NUMERICS + environment.SPEED)}
    given = {"OMP_NUM_THREADS": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "TORCH_HOME": "/somewhere", "EDITOR": "vi"}
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, env=clean | given, capture_output=True,
                          text=True, check=True)
    assert done.stdout.strip() == "{'OMP_NUM_THREADS': '3', 'TF_ENABLE_ONEDNN_OPTS': '0', 'XLA_FLAGS': 'x'}"


def test_variables_that_change_the_training_are_refused(monkeypatch):
    environment.refuse_variables("PL_TRAINER_")
    monkeypatch.setenv("PL_TRAINER_MAX_STEPS", "3")
    with pytest.raises(UserError, match=r"environment variable PL_TRAINER_MAX_STEPS changes the training.*unset it"):
        environment.refuse_variables("PL_TRAINER_")


LINES = {
    "noise": "I0000 00:00:1795657553.747369    1893 port.cc:153] oneDNN custom operations are on.",
    "of a year before": "I1203 10:11:12.747369    1893 cpu_feature_guard.cc:227] This binary is optimized",
    "header": "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "no GPU": "E0000 00:00:1795657559.925512    1893 cuda_platform.cc:52] failed call to cuInit: UNKNOWN ERROR (303)",
    "own": "a line of somebody else's",
}


def print_lines(gpu: bool, fails: bool) -> str:
    """What is left on stderr of LINES, written past Python, on a machine with or without a GPU."""
    program = f"""
import os
from shared.machine import console
console.has_nvidia_gpu = lambda: {gpu}
try:
    with console.drop_start_up_lines():
        for line in {list(LINES.values())}:
            os.write(2, (line + "\\n").encode())
        assert not {fails}
except AssertionError:
    os.write(2, b"failed\\n")
os.write(2, b"after\\n")
"""
    return subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True).stderr


@pytest.mark.parametrize(("gpu", "fails", "left"), [
    (False, False, ["own"]), (True, False, ["no GPU", "own"]), (False, True, ["no GPU", "own", "failed"])])
def test_start_up_lines_are_dropped_and_no_others(gpu, fails, left):
    assert print_lines(gpu, fails).splitlines() == [*(LINES.get(name, name) for name in left), "after"]


def test_a_long_wait_is_told_once_and_a_short_one_is_not(monkeypatch, capsys):
    monkeypatch.setattr(console, "PATIENCE", 0.2)
    console.start_watching.cache_clear()  # the thread of another test sleeps for longer
    with console.tell_if_slow("reading slowly"):
        with console.tell_if_slow("reading fast"):
            pass
        time.sleep(0.8)
    with pytest.raises(UserError), console.tell_if_slow("failing"):
        raise UserError
    assert console.waits == {}
    said = capsys.readouterr().err
    assert said.count("reading slowly has taken 0.2 seconds and goes on") == 1
    assert "fast" not in said


@pytest.mark.parametrize(("wanted", "gpus", "here", "visible", "told"), [
    ("auto", 0, True, None, True), ("auto", 0, False, None, False), ("auto", 1, True, None, False),
    ("cpu", 0, True, None, False), ("auto", 0, True, "", False), ("auto", 0, True, "-1", False),
    ("auto", 0, True, "0", True)])
def test_a_gpu_that_the_framework_does_not_find_is_told(monkeypatch, capsys, wanted, gpus, here, visible, told):
    monkeypatch.setattr(hardware, "has_nvidia_gpu", lambda: here)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    hardware.tell_unused_gpu(wanted, gpus, "PyTorch")
    assert ("PyTorch does not find" in capsys.readouterr().err) == told
