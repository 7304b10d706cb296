"""A run folder belongs to one process at a time: who holds it, how the hold ends. All on one machine."""

import contextlib
import json
import os
import signal
import socket
import time

import pytest

from shared.config import Config
from shared.errors import StoppedError, UserError
from shared.runs.folder import RunFolder
from shared.runs.lock import HOLDER, LOCK, RunLock
from tests.shared.recordings import make_config, start
from tests.shared.run_folders import WAIT

FORK = """
if os.fork() == 0:  # as a data loader's worker, which outlives its parent for some seconds
    os.close(1)
    time.sleep(8)
    os._exit(0)
time.sleep(0.5)
"""


@pytest.fixture
def config(tmp_path):
    return Config(output_dir=str(tmp_path / "runs"), experiment="made")


def unfinished(config, stamp):
    """A run that was begun before and is nobody's."""
    run = RunFolder.start(config, "keras")
    run.write_record()
    run.release()
    return run.folder.rename(run.folder.with_name(f"keras_seed0_{stamp}"))


def test_a_second_process_is_told_who_holds_it(held, config, tmp_path):
    folder = unfinished(config, "20260101-000000")
    process = held(folder)
    config.resume = str(folder)
    with pytest.raises(UserError) as told:
        RunFolder.start(config, "keras")
    assert str(told.value).startswith(f"{folder} is in use by process {process.pid} on {socket.gethostname()} since 20")
    assert str(told.value).endswith("; wait for it or stop it, or begin another run with resume=none")
    assert json.loads((folder / HOLDER).read_text())["pid"] == process.pid  # and nothing is changed


@pytest.mark.parametrize(("stamps", "of_others", "expected"), [
    (["20260101-000000", "20260102-000000"], 1, "20260101-000000"),
    (["20260101-000000", "20260102-000000", "20260103-000000"], 2, "20260101-000000"),
    (["20260101-000000"], 1, None),
    (["20260101-000000", "20260102-000000"], 2, None),
    (["20260101-000000"], 0, "20260101-000000")])
def test_auto_passes_over_what_others_hold(held, config, capsys, stamps, of_others, expected):
    folders = [unfinished(config, stamp) for stamp in stamps]
    for folder in folders[len(folders) - of_others:]:
        held(folder)
    config.resume = "auto"
    run = RunFolder.start(config, "keras")
    assert run.resumed == bool(expected)
    assert run.folder not in folders if expected is None else run.name == f"keras_seed0_{expected}"
    told = capsys.readouterr().err.splitlines()
    assert len(told) == of_others
    assert all(line.startswith("passed over: ") and "is in use by process" in line for line in told)


def test_a_new_run_is_held_before_auto_can_find_it(config, monkeypatch):
    seen = []
    monkeypatch.setattr("shared.runs.folder.write_config", lambda folder, config: seen.append(
        (folder / HOLDER).exists()))
    RunFolder.start(config, "keras")
    assert seen == [True]


def test_auto_leaves_a_run_that_finished_while_it_looked(config, monkeypatch):
    folder = unfinished(config, "20260101-000000")
    acquire = RunLock.acquire

    def late(place):
        (place / "result.json").write_text("{}")
        return acquire(place)
    monkeypatch.setattr(RunLock, "acquire", late)
    config.resume = "auto"
    run = RunFolder.start(config, "keras")
    assert run.folder != folder
    assert not (folder / HOLDER).exists()


@pytest.mark.parametrize("end", ["exit", "error", "SIGKILL", "SIGKILL with a child", "SIGTERM"])
def test_the_hold_ends_with_its_process(held, tmp_path, end):
    then = {"exit": "print('held', flush=True)\n", "error": "print('held', flush=True)\n1 / 0\n",
            "SIGKILL with a child": FORK + WAIT}.get(end, WAIT)
    process = held(tmp_path, then + ("" if "SIG" in end else "sys.stderr.close()\n"))
    if "SIG" in end:
        process.send_signal(getattr(signal, end.split()[0]))
    began = time.monotonic()
    process.wait(timeout=10)  # no thread keeps it alive
    RunLock.acquire(tmp_path).release()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("error", [None, ValueError("a bug"), KeyboardInterrupt(), StoppedError("stopped", 15)])
def test_the_end_of_a_training_lets_go(held, tmp_path, error):
    recorder = start(make_config(tmp_path))
    folder = recorder.run.folder
    with pytest.raises(type(error)) if error else contextlib.nullcontext(), recorder:
        assert (folder / HOLDER).exists()
        if error:
            raise error
    assert not (folder / HOLDER).exists()
    held(folder)  # another process can have it, while this one goes on


def test_what_never_came_to_train_lets_go(held, config):
    run = RunFolder.start(config, "keras")
    folder = run.folder
    del run
    held(folder)


def test_one_process_trains_a_run_again_and_again(config):
    """In a notebook, or after an exception that somebody still looks at."""
    first = RunFolder.start(config, "keras")
    first.write_record()
    config.resume = str(first.folder)
    second = RunFolder.start(config, "keras")
    moved = second.folder.rename(second.folder.with_name("moved"))
    config.resume = str(moved)
    third = RunFolder.start(config, "keras")
    assert (moved / HOLDER).exists()
    first.release()  # of a hold that it no longer has
    assert not third.lock.released.is_set()
    assert (moved / HOLDER).exists()


def test_of_the_processes_of_a_run_the_leader_alone_holds_it(config):
    told = []
    leader = RunFolder.start_together(config, "keras", True, lambda text: told.append(text) or text)
    for _ in range(2):
        other = RunFolder.start_together(config, "keras", False, lambda text: told[0])
        assert (other.folder, other.lock) == (leader.folder.absolute(), None)
        other.release()
    assert (leader.folder / HOLDER).exists()


def test_a_forked_child_does_not_let_go_for_its_parent(tmp_path):
    lock = RunLock.acquire(tmp_path)
    if (child := os.fork()) == 0:
        lock.release()
        os._exit(0)
    os.waitpid(child, 0)
    assert (tmp_path / HOLDER).exists()
    lock.release()


@pytest.mark.parametrize("damage", [lambda folder: (folder / LOCK).mkdir(),
                                    lambda folder: (folder / LOCK).symlink_to(folder / "loop" / LOCK),
                                    lambda folder: (folder / HOLDER).mkdir()])
def test_a_folder_that_cannot_be_written_to_is_told_in_a_line(config, damage):
    folder = unfinished(config, "20260101-000000")
    (folder / LOCK).unlink()
    damage(folder)
    config.resume = str(folder)
    with pytest.raises(UserError) as told:
        RunFolder.start(config, "keras")
    assert str(told.value).startswith(f"{folder} cannot be written to (")
    assert str(told.value).endswith("copy the folder and name the copy with resume=")
    config.resume = "auto"
    assert not RunFolder.start(config, "keras").resumed
