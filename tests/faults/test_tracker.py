"""The tracker's faults with the patience that users have, and through whole trainings."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from shared.machine.files import REPOSITORY
from shared.machine.interpreters import is_installed, list_siblings
from shared.training.trackers.wandb import TIMEOUT
from tests.wandb_faults import Server, environment, tracked

# What W&B needs besides waiting: to start its process, twice where it goes on offline.
SLACK = 12


@pytest.mark.parametrize("fault", ["refuses", "hangs", "fails"])
def test_at_the_start(tmp_path, report, fault):
    with Server(fault) as server:
        done = tracked(tmp_path, server, TIMEOUT)
    assert done.rows == 10
    assert done.seconds["all"] < TIMEOUT + SLACK < 30
    assert len(done.told) == 1
    assert "it is kept offline: `wandb sync " in done.told[0]
    report(f"W&B server {fault} from the start on", 1, 1)


@pytest.mark.parametrize("fault", ["refuses", "hangs", "fails"])
def test_in_mid_run(tmp_path, report, fault):
    with Server("answers") as server:
        done = tracked(tmp_path, server, TIMEOUT, after_row_5=lambda: server.become(fault))
    assert done.rows == 10
    assert done.seconds["rows"] < 2
    assert done.seconds["all"] < TIMEOUT + SLACK < 30
    assert len(done.told) == 1
    assert f"not everything was sent within {TIMEOUT} s" in done.told[0]
    report(f"W&B server {fault} in mid-run", 1, 1)


@pytest.mark.parametrize("sibling", list_siblings())
def test_a_training_goes_on_where_the_server_hangs(tmp_path, report, sibling):
    if not is_installed(sibling):
        pytest.skip(f"the {sibling} sibling is not installed")
    with Server("hangs") as server:
        before = time.perf_counter()
        done = subprocess.run(
            [sys.executable, str(REPOSITORY / f"{sibling}_project" / "train.py"), "output_dir=runs", "train.epochs=1",
             "tracking.mode=online", "dataset.limit_train=64", "dataset.limit_test=16", "train.batch_size=32",
             "schedule.warmup_epochs=0", "hardware.threads=1"],
            cwd=tmp_path, env=environment(tmp_path, server), capture_output=True, text=True, timeout=200, check=False)
        seconds = time.perf_counter() - before
    assert done.returncode == 0, done.stderr
    assert seconds < 100
    assert sum("Weights & Biases" in line for line in done.stderr.splitlines()) == 1
    results = list(Path(tmp_path, "runs").rglob("result.json"))
    assert len(results) == 1
    report(f"W&B server hangs, whole training, {sibling}", 1, 1)
