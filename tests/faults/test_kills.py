"""Trainings that are hit by faults and end as if they never had been; on several devices and machines too."""

import os
import random
import shutil

import pytest

from shared.machine.interpreters import is_installed, list_siblings
from tests.conftest import needs
from tests.trainings import (
    STEPS,
    assert_close_training,
    assert_same_training,
    on_devices,
    only_run,
    run,
    wait,
    workers,
)

pytestmark = pytest.mark.timeout(900)
KILLS = 10


def assert_same(sibling, words, uncut, cut):
    """The same training. Keras puts an epoch's sums over two devices back in equal shares, which rounds."""
    assert_same_training(uncut, cut, 1e-14 if (sibling, words[0][-1]) == ("keras", "2") else 0.0)


@pytest.fixture(scope="module", params=list_siblings())
def sibling(request):
    if not is_installed(request.param):
        pytest.skip(f"the {request.param} sibling is not installed")
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
    assert_same(sibling, words, uncut, only_run(tmp_path, sibling))
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
        assert "cannot be written (File too large); what was there before is whole" in ended.err
    ended = run(sibling, tmp_path, *words)
    assert ended.code == 0, ended.err[-2000:]
    assert_same(sibling, words, uncut, only_run(tmp_path, sibling))
    report(f"{fault}, {sibling}, {words[0]}", 1, 1)


def test_what_a_model_draws_goes_on_where_it_was(sibling, tmp_path, report):
    words = ["model.dropout=0.3", "model.stochastic_depth=0.3", "train.accumulate=2"]
    assert run(sibling, tmp_path / "uncut", *words).code == 0
    assert run(sibling, tmp_path / "cut", *words, fault="kill", step=9).code == -9
    ended = run(sibling, tmp_path / "cut", *words)
    assert ended.code == 0, ended.err[-2000:]
    assert_same_training(*(only_run(tmp_path / name, sibling) for name in ("uncut", "cut")))
    report(f"killed with dropout, stochastic depth and batches in parts, {sibling}", 1, 1)


def test_parts_of_a_batch_on_two_devices_are_those_on_one(sibling, tmp_path, report):
    for devices in (1, 2):
        ended = run(sibling, tmp_path / str(devices), "train.accumulate=2", f"hardware.devices={devices}")
        assert ended.code == 0, ended.err[-3000:]
    assert_close_training(*(only_run(tmp_path / str(devices), sibling) for devices in (1, 2)))
    report(f"batches in parts on two devices, {sibling}: what one device trains", 1, 1)


def damage(kind, checkpoint, mark):
    if kind == "truncated":
        os.truncate(checkpoint, checkpoint.stat().st_size // 2)
    elif kind == "empty":
        checkpoint.write_bytes(b"")
    elif kind == "foreign":
        shutil.copy(checkpoint.parent.parent / "best.safetensors", checkpoint)
    else:  # a pickle that runs a command where it is loaded
        checkpoint.write_bytes(f"cos\nsystem\n(S'touch {mark}'\ntR.".encode())


@pytest.mark.parametrize("kind", ["truncated", "empty", "foreign", "malicious"])
def test_a_checkpoint_that_is_none_is_refused_and_the_one_before_it_taken(sibling, tmp_path, report, kind):
    uncut, cut, mark = tmp_path / "uncut", tmp_path / "cut", tmp_path / "mark"
    assert run(sibling, uncut).code == 0
    assert run(sibling, cut, fault="kill", step=11).code == -9
    checkpoint = next(only_run(cut, sibling).glob("checkpoints/last.*"))
    damage(kind, checkpoint, mark)
    ended = run(sibling, cut)
    assert ended.code == 2, ended.err[-2000:]
    assert str(checkpoint) in ended.last
    assert "delete it to go on from previous." in ended.last
    assert not mark.exists()
    checkpoint.unlink()
    ended = run(sibling, cut)
    assert ended.code == 0, ended.err[-2000:]
    assert_same_training(only_run(uncut, sibling), only_run(cut, sibling))
    report(f"{kind} checkpoint, {sibling}: refused, resumed from the one before", 1, 1)


@pytest.mark.parametrize("devices", [1, 3])
def test_resumed_on_another_number_of_devices(sibling, whole, tmp_path, report, devices):
    uncut, words = whole
    if f"hardware.devices={devices}" in words:
        pytest.skip("the same number")
    assert run(sibling, tmp_path, *words, fault="kill", step=10).code == -9
    ended = run(sibling, tmp_path, f"hardware.devices={devices}")
    assert ended.code == 0, ended.err[-2000:]
    assert_close_training(uncut, only_run(tmp_path, sibling), on_devices(sibling, devices))
    report(f"killed on {words[0][-1]} devices, resumed on {devices}, {sibling}", 1, 1)


def test_unfrozen_on_two_devices_it_trains_what_one_does(sibling, tmp_path, report):
    words = ["model.freeze=backbone", "train.unfreeze_epoch=1", "optimizer.backbone_lr_factor=0.1",
             "train.monitor=val/loss"]
    for devices in (1, 2):
        ended = run(sibling, tmp_path / str(devices), *words, f"hardware.devices={devices}")
        assert ended.code == 0, ended.err[-3000:]
    assert_close_training(*(only_run(tmp_path / str(devices), sibling) for devices in (1, 2)))
    report(f"frozen, then unfrozen on two devices, {sibling}: what one device trains", 1, 1)


@needs("lightning")
def test_a_killed_ddp_process_ends_the_other_within_a_minute(tmp_path, report):
    ended = run("lightning", tmp_path, "hardware.devices=2", fault="kill-worker", step=5)
    assert ended.code == 2
    assert ended.seconds < 60, ended.seconds
    assert "another process of this run ended" in ended.last, ended.err[-3000:]
    ended = run("lightning", tmp_path, "hardware.devices=2")
    assert ended.code == 0, ended.err[-2000:]
    report("a DDP process killed: the other ends with a message, the run resumes", 1, 1)


@needs("keras")
@pytest.mark.parametrize("fault", ["term", "term-worker"])
def test_one_worker_told_to_stop_stops_both_at_the_same_step(tmp_path, report, fault):
    uncut = run("keras", tmp_path / "uncut")
    assert uncut.code == 0, uncut.err[-3000:]
    leader, other = (wait(process, 150) for process in workers(tmp_path / "cut", fault=fault, step=5))
    assert (leader.code, other.code) == (143, 143), leader.err[-3000:]
    assert leader.last.startswith("stopped by SIGTERM after step 5, which is saved; go on with resume=")
    for process in workers(tmp_path / "cut"):
        ended = wait(process)
        assert ended.code == 0, ended.err[-3000:]
    assert_close_training(*(only_run(tmp_path / name, "keras") for name in ("uncut", "cut")))
    report(f"{fault} to one of two Keras workers: both save and stop, the run resumes", 1, 1)


@needs("keras")
@pytest.mark.parametrize("fault", ["kill", "kill-worker"])
def test_a_lost_worker_ends_the_other_within_a_minute(tmp_path, report, fault):
    leader, other = (wait(process, 150) for process in workers(tmp_path, fault=fault, step=5))
    hit, left = (other, leader) if fault == "kill-worker" else (leader, other)
    assert hit.code == -9, hit.err[-3000:]
    assert left.code == 2, left.err[-3000:]
    assert "another process of this run ended" in left.last, left.err[-3000:]
    assert abs(left.seconds - hit.seconds) < 60
    for process in workers(tmp_path):
        ended = wait(process)
        assert ended.code == 0, ended.err[-3000:]
    report(f"{fault} to one of two Keras workers: the other ends, the run resumes", 1, 1)
