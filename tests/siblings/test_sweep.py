"""A sweep of real trainings, killed with the training that it runs, and gone on with."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shared.machine.interpreters import is_installed, list_siblings
from shared.runs.records import count_finished_epochs, read_history

SWEEP = """
fixed:
  dataset: {limit_train: 220, limit_test: 60}
  train.epochs: 3
  tracking.mode: disabled
  hardware: {threads: 1, accelerator: cpu}
space:
  optimizer.lr: {low: 0.001, high: 0.1, log: true}
  train.batch_size: [32, 64]
"""
INSTALLED = [name for name in list_siblings() if is_installed(name)]


def start(folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "shared.sweep", "small.yaml", "--trials", "2", "--siblings", ",".join(INSTALLED)]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="no sibling is installed")
def test_a_sweep_of_real_trainings_that_was_killed_goes_on(tmp_path):
    pytest.importorskip("optuna")
    (tmp_path / "small.yaml").write_text(SWEEP, encoding="utf-8")
    runs = tmp_path / "runs" / "small"

    process = start(tmp_path)
    until = time.monotonic() + 200
    while not any(count_finished_epochs(file.parent) for file in runs.glob("small_001/*/metrics.jsonl")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    [note] = [json.loads(file.read_text(encoding="utf-8")) for file in runs.glob("small_001/processes/*/process.json")]
    os.kill(note["pid"], signal.SIGKILL)
    finished = {file: file.stat().st_mtime for file in runs.glob("*/*/result.json")}
    assert len(finished) == len(INSTALLED)  # the first trial, of all siblings

    process = start(tmp_path)
    out, err = process.communicate(timeout=250)
    assert process.returncode == 0, err
    assert f"trial 2 of 2, {INSTALLED[0]} goes on: optimizer.lr=" in err
    assert out.count("2 finished") == len(INSTALLED)
    assert all(file.stat().st_mtime == before for file, before in finished.items())
    for number in ("000", "001"):
        folders = list(runs.glob(f"small_{number}/*_seed0_*"))
        assert len(folders) == len(INSTALLED)
        for folder in folders:
            assert (folder / "result.json").is_file()
            epochs = [row["epoch"] for row in read_history(folder / "metrics.jsonl") if "perf/epoch_seconds" in row]
            assert epochs == [1, 2, 3]
    # The best setting is a preset that trains.
    done = subprocess.run([sys.executable, str(Path(__file__).parents[2] / f"{INSTALLED[0]}_project" / "train.py"),
                           str(runs / f"best_{INSTALLED[0]}.yaml"), "train.epochs=1"], cwd=tmp_path, text=True,
                          capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "test/accuracy" in done.stdout
