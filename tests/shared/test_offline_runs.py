"""Offline runs of W&B that were resumed: two folders with one id, and what `wandb sync` sends of them.

The server here is a stand-in that keeps rows as W&B's file stream and its table of steps do. It shows what W&B's client
sends, and not what W&B's service makes of it.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.wandb_faults import Server, environment

pytestmark = pytest.mark.usefixtures("nobody")

# A run that logs the rows from FIRST to LAST, and is killed or finishes.
SCRIPT = """
import os, sys, time
from pathlib import Path
from shared.config import Config
from shared.runs.folder import RunFolder
from shared.training.trackers import Trackers

first, last, end = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
folder = Path("runs/made/keras_seed0_20260101-000000")
folder.mkdir(parents=True, exist_ok=True)
trackers = Trackers(RunFolder(folder, Config(experiment="made"), "keras", resumed=first > 1))
for row in range(first, last + 1):
    trackers.log({"samples": 10 * row, "epoch": row / 10, "time/train_s": row / 2, "train/loss": 1 / row})
if end == "killed":
    time.sleep(1)  # W&B's own process writes a little later
    os.kill(os.getpid(), 9)
trackers.finish({"test/accuracy": 0.75}, status=0)
"""


def track(folder, server, first, last, end="finished", **variables):
    time.sleep(1.1)  # a folder is named by the second
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(first), str(last), end], cwd=folder, capture_output=True,
                          text=True, timeout=90, check=False, env=environment(folder, server, **variables))
    assert done.returncode == (-signal.SIGKILL if end == "killed" else 0), done.stderr
    return done.stderr


def sync(folder, server, *words, **variables):
    """What docs/running.md says: `wandb sync wandb/offline-run-*`."""
    done = subprocess.run([Path(sys.executable).with_name("wandb"), "sync", *words], cwd=folder, capture_output=True,
                          text=True, timeout=90, check=False, env=environment(folder, server, **variables))
    assert done.returncode == 0, done.stderr
    assert "rror" not in done.stderr, done.stderr


def offline_runs(folder):
    return sorted(os.path.relpath(path, folder) for path in (folder / "wandb").glob("offline-run-*"))


@pytest.mark.parametrize("end", ["finished", "killed"])
@pytest.mark.parametrize("order", ["as the shell lists them", "newest first", "one by one"])
def test_all_rows_of_a_resumed_offline_run_arrive(tmp_path, end, order):
    with Server("answers") as server:
        track(tmp_path, server, 1, 5, end, WANDB_MODE="offline")
        track(tmp_path, server, 6, 9, WANDB_MODE="offline")
        runs = offline_runs(tmp_path)
        assert len(runs) == 2
        assert len({next((tmp_path / run).glob("*.wandb")).name for run in runs}) == 1  # one id
        for words in ([runs], [runs[::-1]], [[run] for run in runs])[
                ["as the shell lists them", "newest first", "one by one"].index(order)]:
            sync(tmp_path, server, *words)
        assert server.table() == {step: 10 * (step + 1) for step in range(9)}


def test_what_was_sent_before_the_server_was_lost_stays(tmp_path):
    with Server("answers") as server:
        track(tmp_path, server, 1, 4, "killed", WANDB_MODE="online")
        assert server.table() == {step: 10 * (step + 1) for step in range(4)}
        track(tmp_path, server, 5, 7, WANDB_MODE="offline")
        sync(tmp_path, server, *offline_runs(tmp_path))
        assert server.table() == {step: 10 * (step + 1) for step in range(7)}


def test_sent_a_second_time_they_take_their_own_places(tmp_path):
    with Server("answers") as server:
        track(tmp_path, server, 1, 3, WANDB_MODE="offline")
        track(tmp_path, server, 4, 6, WANDB_MODE="offline")
        for _ in range(2):
            sync(tmp_path, server, "--include-synced", *offline_runs(tmp_path))
        assert server.table() == {step: 10 * (step + 1) for step in range(6)}


# A run as this repository wrote it before, and as W&B writes one that was started without `resume`.
PLAIN = """
import sys, wandb
run = wandb.init(project="p", id="one", mode="offline", settings=wandb.Settings(silent=True))
for row in range(int(sys.argv[1]), int(sys.argv[2]) + 1):
    run.log({"samples": 10 * row})
run.finish()
"""


@pytest.mark.parametrize(("variables", "kept"), [({}, [50, 60, 70, 80]), ({"WANDB_RESUME": "allow"}, range(10, 90, 10))])
def test_folders_without_the_wish_to_resume_replace_each_other_unless_it_is_said(tmp_path, variables, kept):
    """Why `resume` is passed offline too, and what to do about folders that were written without it."""
    with Server("answers") as server:
        for first, last in ((1, 4), (5, 8)):
            time.sleep(1.1)
            subprocess.run([sys.executable, "-c", PLAIN, str(first), str(last)], cwd=tmp_path, check=True,
                           env=environment(tmp_path, server), timeout=90)
        sync(tmp_path, server, *offline_runs(tmp_path), **variables)
        assert list(server.table().values()) == list(kept)
