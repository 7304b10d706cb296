"""Trainings that are killed again and again, and end as if they never had been: make test-faults.

Each chain is one run that SIGKILL ends at ten random steps; five chains' worth of faults a table at the end lists.
"""

import random

import pytest

from tests.faults.trainings import STEPS, assert_same_training, only_run, run

KILLS = 10
DEVICES = {"lightning": 2, "keras": 2}


@pytest.fixture(scope="module", params=["lightning", "keras"])
def sibling(request):
    return request.param


@pytest.fixture(scope="module", params=[1, 2], ids=["one device", "two devices"])
def whole(request, sibling, tmp_path_factory):
    """A training that nothing hits, and the words it was started with."""
    words = [f"hardware.devices={request.param}"]
    folder = tmp_path_factory.mktemp("whole")
    ended = run(sibling, folder, *words)
    assert ended.code == 0, ended.err
    return only_run(folder, sibling), words


def test_killed_at_ten_random_steps(sibling, whole, tmp_path, report):
    uncut, words = whole
    draws = random.Random(f"{sibling} {words}")
    step, lost = 0, 0
    for _ in range(KILLS):
        # From the checkpoint on, a few steps ahead, so that ten kills fit into one training and each still gets on.
        step = min(step + draws.randint(1, 3), STEPS)
        ended = run(sibling, tmp_path, *words, fault="kill", step=step)
        assert ended.code == -9, (step, ended.code, ended.err[-2000:])
        lost += len(list(tmp_path.glob(f"*/{sibling}_*"))) - 1
    ended = run(sibling, tmp_path, *words)
    assert ended.code == 0, ended.err[-2000:]
    assert_same_training(uncut, only_run(tmp_path, sibling))
    report(f"SIGKILL at a random step, {sibling}, {words[0]}", KILLS, KILLS - lost)


@pytest.mark.parametrize("fault", ["kill-writing", "kill-moving", "term", "int", "full-disk"])
def test_hit_once_at_any_step(sibling, whole, tmp_path, report, fault):
    uncut, words = whole
    step = random.Random(f"{fault} {sibling} {words}").randint(3, STEPS - 4)
    ended = run(sibling, tmp_path, *words, fault=fault, step=step)
    codes = {"term": 143, "int": 130, "full-disk": 2}
    assert ended.code == codes.get(fault, -9), (step, ended.code, ended.err[-2000:])
    if fault in ("term", "int"):
        assert f"after step {step}, which is saved; go on with resume=" in ended.last or "(epoch" in ended.last
    if fault == "full-disk":
        assert "cannot be written" in ended.last
        assert "what was there before is whole" in ended.last
    ended = run(sibling, tmp_path, *words)
    assert ended.code == 0, ended.err[-2000:]
    assert_same_training(uncut, only_run(tmp_path, sibling))
    report(f"{fault}, {sibling}, {words[0]}", 1, 1)


def test_a_killed_worker_ends_the_others_within_a_minute(tmp_path, report):
    ended = run("lightning", tmp_path, "hardware.devices=2", fault="kill-worker", step=5)
    assert ended.code != 0
    assert ended.seconds < 75, ended.seconds  # a start takes 10 of them
    assert "another process of this run" in ended.last, ended.err[-3000:]
    ended = run("lightning", tmp_path, "hardware.devices=2")
    assert ended.code == 0, ended.err[-2000:]
    report("a DDP worker killed, the other ends and resumes", 1, 1)
