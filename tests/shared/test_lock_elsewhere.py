"""Who holds a run folder, seen from another machine, whose locks may not be seen here; and where there are no locks."""

import errno
import json
import os
import threading
import time

import pytest

from shared.errors import UserError
from shared.runs import lock as module
from shared.runs.folder import RunFolder
from shared.runs.lock import HOLDER, LOCK, RunLock, UnavailableError, identify_machine, read_process_start
from tests.shared.recordings import make_config, start
from tests.shared.run_folders import hold_by_another_machine


@pytest.fixture
def quick(monkeypatch):
    """Less patience with other machines."""
    monkeypatch.setattr(module, "BEAT", 0.05)
    monkeypatch.setattr(module, "WATCH", 0.4)


def test_a_holder_that_shows_life_keeps_the_folder(tmp_path, quick, capsys):
    hold_by_another_machine(tmp_path)
    ended = threading.Event()

    def beat():
        while not ended.wait(0.05):
            os.utime(tmp_path / HOLDER)
    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(UnavailableError, match="is in use by process 7 on elsewhere since yesterday; wait for it"):
            RunLock.acquire(tmp_path)
    finally:
        ended.set()
        thread.join()
    assert "watching for up to" in capsys.readouterr().err


@pytest.mark.parametrize("age", [0, 60, -60])  # and clocks that are a minute apart
def test_a_holder_without_a_sign_of_life_has_lost_the_folder(tmp_path, quick, age):
    hold_by_another_machine(tmp_path, age)
    lock = RunLock.acquire(tmp_path)
    assert json.loads((tmp_path / HOLDER).read_text()) == lock.me
    lock.release()


@pytest.mark.parametrize("age", [2 * 3600, 86400, -86400])
def test_an_old_sign_of_life_is_not_watched(tmp_path, capsys, age):
    hold_by_another_machine(tmp_path, age)
    began = time.monotonic()
    RunLock.acquire(tmp_path).release()
    assert time.monotonic() - began < 5
    assert capsys.readouterr().err == ""


def test_a_holder_that_lets_go_while_it_is_watched_is_no_holder(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "WATCH", 5)
    hold_by_another_machine(tmp_path)
    timer = threading.Timer(0.1, (tmp_path / HOLDER).unlink)
    timer.start()
    RunLock.acquire(tmp_path).release()
    timer.join()


def test_where_a_lock_of_another_machine_is_seen_the_way_out_is_named(held, tmp_path):
    held(tmp_path)
    hold_by_another_machine(tmp_path)
    with pytest.raises(UnavailableError) as told:
        RunLock.acquire(tmp_path)
    assert str(told.value).endswith(f"where that machine is down, delete {tmp_path / LOCK}")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"host": "x"}'])
def test_a_damaged_holder_file_names_nobody(tmp_path, content):
    (tmp_path / HOLDER).write_text(content)
    RunLock.acquire(tmp_path).release()
    assert not (tmp_path / HOLDER).exists()


def test_the_holder_shows_life_until_the_end(tmp_path, quick):
    lock = RunLock.acquire(tmp_path)
    for _ in range(2):
        os.utime(tmp_path / HOLDER, (1, 1))
        until = time.monotonic() + 5
        while (tmp_path / HOLDER).stat().st_mtime == 1:
            assert time.monotonic() < until
            time.sleep(0.02)
    lock.release()
    assert not (tmp_path / HOLDER).exists()
    assert not lock.lost


@pytest.mark.parametrize("change", [hold_by_another_machine, lambda folder: (folder / HOLDER).unlink()])
def test_a_process_whose_run_was_taken_over_writes_nothing_more(tmp_path, quick, change):
    config = make_config(tmp_path)
    run = RunFolder.start(config, "keras")
    recorder = start(config, run)
    recorder.log_metrics({"a": 1.0})
    change(run.folder)
    until = time.monotonic() + 5
    while not run.lock.lost:
        assert time.monotonic() < until
        time.sleep(0.02)
    kept = run.metrics_file.read_text()
    with pytest.raises(UserError, match="was taken over by another process"):
        recorder.log_metrics({"a": 2.0})
    with pytest.raises(UserError, match="was taken over by another process"):
        run.finish({}, {}, {})
    assert run.metrics_file.read_text() == kept
    there = (run.folder / HOLDER).exists()
    run.release()
    assert (run.folder / HOLDER).exists() == there  # that of the other


# A file system without locks

@pytest.fixture
def without_locks(monkeypatch):
    from filelock import FileLock

    def refuse(*words, **more):
        raise OSError(errno.ENOLCK, "No locks available")
    monkeypatch.setattr(FileLock, "acquire", refuse)


@pytest.mark.parametrize(("facts", "is_free"), [
    ({"pid": os.getppid()}, False),
    ({"pid": os.getppid(), "process_start": 1}, True),  # its number was given to another process
    ({"pid": 2**22 + 1, "process_start": 1}, True)])
def test_a_process_of_this_machine_is_looked_for(tmp_path, without_locks, facts, is_free):
    if read_process_start(os.getpid()) is None:
        pytest.skip("processes are found in /proc")
    facts = {"machine": identify_machine(), "process_start": read_process_start(facts["pid"]), **facts}
    hold_by_another_machine(tmp_path, **facts)
    if is_free:
        RunLock.acquire(tmp_path).release()
    else:
        with pytest.raises(UnavailableError, match="is in use by process"):
            RunLock.acquire(tmp_path)


def test_a_process_of_another_machine_is_watched(tmp_path, without_locks, quick):
    hold_by_another_machine(tmp_path, pid=os.getppid(), process_start=read_process_start(os.getppid()))
    RunLock.acquire(tmp_path).release()
