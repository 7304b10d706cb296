"""Offline runs of W&B that were resumed: several folders with one id, and what `wandb sync` sends of them.

The server here is a stand-in that keeps rows as W&B's file stream and its table of steps do. It shows what W&B's client
sends, and not what W&B's service makes of it.
"""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.wandb_faults import Server, environment

# Logs the rows from FIRST to LAST of one run, and finishes or is killed. W&B's own process is killed too, because it
# would go on for seconds and write what it still has, now more and now less.
SCRIPT = """
import os, subprocess, sys, time
from pathlib import Path
from shared.config import Config
from shared.runs.folder import RunFolder
from shared.training.trackers import Trackers

class Child(subprocess.Popen):
    started = []

    def __init__(self, *words, **settings):
        super().__init__(*words, **settings)
        self.started.append(self)

subprocess.Popen = Child
first, last, end = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
folder = Path("runs/made/keras_seed0_20260101-000000")
folder.mkdir(parents=True, exist_ok=True)
trackers = Trackers(RunFolder(folder, Config(experiment="made"), "keras", resumed=first > 1))
for row in range(first, last + 1):
    trackers.log({"samples": 10 * row, "epoch": row / 10, "time/train_s": row / 2, "train/loss": 1 / row})
if end == "killed":
    time.sleep(1)  # W&B's own process writes a little later
    for child in Child.started:
        child.kill()
    os.kill(os.getpid(), 9)
trackers.finish({"test/accuracy": 0.75}, status=0)
"""
# The same without this repository, as W&B writes a run that was started without `resume`.
PLAIN = """
import sys, wandb
run = wandb.init(project="p", id="one", mode="offline", settings=wandb.Settings(silent=True))
for row in range(int(sys.argv[1]), int(sys.argv[2]) + 1):
    run.log({"samples": 10 * row})
run.finish()
"""


def track(folder, first, last, end="finished", script=SCRIPT, server=None, mode="offline"):
    done = subprocess.run([sys.executable, "-c", script, str(first), str(last), end], cwd=folder, capture_output=True,
                          text=True, timeout=90, check=False, env=environment(folder, server, WANDB_MODE=mode))
    assert done.returncode == (-signal.SIGKILL if end == "killed" else 0), done.stderr
    assert done.stderr == ""


def sync(folder, server, *words, **variables):
    """`wandb sync` with `words`, and what it says."""
    done = subprocess.run([Path(sys.executable).with_name("wandb"), "sync", *words], cwd=folder, capture_output=True,
                          text=True, timeout=90, check=False, env=environment(folder, server, **variables))
    assert done.returncode == 0, done.stderr  # also where it could not read a run
    return done.stderr


def offline_runs(folder):
    """Their folders, in the order in which a shell lists them: that of time."""
    return sorted(f"wandb/{path.name}" for path in (folder / "wandb").glob("offline-run-*"))


def read_samples(folder):
    """The samples of all rows that W&B's record files hold. A file is 7 bytes of header and then LevelDB's log: blocks
    of 32 KiB with chunks, each with checksum, length and type in front of it."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for run in offline_runs(folder):
        content, place, record = next((folder / run).glob("*.wandb")).read_bytes(), 7, b""
        while place + 7 <= len(content):
            if 32768 - place % 32768 < 7:  # too little for a chunk's own header
                place += 32768 - place % 32768
                continue
            length, kind = struct.unpack("<HB", content[place + 4:place + 7])
            if place + 7 + length > len(content):
                break
            record = (record if kind in (3, 4) else b"") + content[place + 7:place + 7 + length]
            place += 7 + length
            if kind in (1, 4):  # whole, or the last part
                items = Record.FromString(record).history.item
                found += [json.loads(item.value_json) for item in items
                          if "samples" in (item.key, *item.nested_key)]
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Folders of a run that was tracked in two pieces, by how the first one ended."""
    def write(name, *pieces, **more):
        folder = tmp_path_factory.mktemp(name)
        for piece in pieces:
            track(folder, *piece, **more)
        return folder
    late = write("late", (1, 3000, "killed"), (3001, 3004))
    record = next((late / offline_runs(late)[0]).glob("*.wandb"))
    os.truncate(record, record.stat().st_size - 3)  # most kills leave it so, but some come right after a whole record
    return {"finished": write("finished", (1, 5), (6, 9)),
            "killed before anything was written": write("early", (1, 5, "killed"), (6, 9)),
            "killed within a record": late,
            "without the wish to resume": write("plain", (1, 4), (5, 8), script=PLAIN)}


@pytest.fixture
def copy(written, tmp_path):
    """A copy of what is written, since `wandb sync` leaves files there."""
    return lambda name: shutil.copytree(written[name], tmp_path / "copy")


def steps_of(samples):
    return dict(enumerate(samples))


@pytest.mark.slow
@pytest.mark.parametrize("order", [
    pytest.param(lambda runs: [runs], id="all at once"),
    pytest.param(lambda runs: [runs[::-1]], id="all at once, the newest first"),
    pytest.param(lambda runs: [[run] for run in runs], id="one by one")])
def test_all_rows_of_a_run_arrive_that_was_stopped_and_resumed(copy, order):
    folder = copy("finished")
    runs = offline_runs(folder)
    assert len(runs) == 2
    assert len({next((folder / run).glob("*.wandb")).name for run in runs}) == 1  # one id
    assert read_samples(folder) == list(range(10, 100, 10))
    with Server("answers") as server:
        for words in order(runs):
            assert "ERROR" not in sync(folder, server, *words)
        assert server.table() == steps_of(range(10, 100, 10))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "last"), [("killed before anything was written", [60, 70, 80, 90]),
                                            ("killed within a record", [30010, 30020, 30030, 30040])])
def test_one_by_one_all_arrives_that_a_killed_run_had_written(copy, name, last):
    """It is what docs/running.md says. All at once, a run that W&B cannot read to its end keeps others back."""
    folder = copy(name)
    samples = read_samples(folder)
    assert samples[-4:] == last
    with Server("answers") as server:
        told = [sync(folder, server, run) for run in offline_runs(folder)]
        assert ["ERROR" in line for line in told] == [True, False]
        assert server.table() == steps_of(samples)


def test_all_at_once_a_killed_run_keeps_the_others_back(copy):
    folder = copy("killed before anything was written")
    with Server("answers") as server:
        assert "Failed to read" in sync(folder, server, *offline_runs(folder))
        assert server.table() == {}  # when this fails, W&B has become better, and the pages may say `wandb sync` alone


def test_what_was_sent_before_the_server_was_lost_stays(tmp_path):
    with Server("answers") as server:
        track(tmp_path, 1, 4, server=server, mode="online")
        assert server.table() == steps_of(range(10, 50, 10))
        track(tmp_path, 5, 7)
        sync(tmp_path, server, *offline_runs(tmp_path))
        assert server.table() == steps_of(range(10, 80, 10))


def test_sent_a_second_time_rows_take_their_own_places(copy):
    folder = copy("finished")
    with Server("answers") as server:
        for _ in range(2):
            sync(folder, server, "--include-synced", *offline_runs(folder))
        assert server.table() == steps_of(range(10, 100, 10))


@pytest.mark.parametrize(("variables", "kept"), [({}, [50, 60, 70, 80]),
                                                 ({"WANDB_RESUME": "allow"}, range(10, 90, 10))])
def test_folders_without_the_wish_to_resume_replace_each_other_unless_it_is_said(copy, variables, kept):
    """Why `resume` is passed offline too, and what to do about folders that were written without it."""
    folder = copy("without the wish to resume")
    with Server("answers") as server:
        for run in offline_runs(folder):
            sync(folder, server, run, **variables)
        assert server.table() == steps_of(kept)
