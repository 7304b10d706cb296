"""What stops a run: a number that is not finite, a signal, a machine that lacks something."""

import json
import math
import os
import signal

import numpy as np
import pytest

from shared.errors import UserError
from shared.runs.folder import RunFolder
from shared.training.recorder import Recorder
from tests.shared.recordings import STEPS, make_config, set_clock, start


@pytest.fixture
def config(tmp_path):
    return make_config(tmp_path)


@pytest.fixture
def clock(monkeypatch):
    return set_clock(monkeypatch)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(config, clock, loss):
    recorder = start(config)
    recorder.begin_epoch()
    with pytest.raises(UserError, match=rf"^the loss is {loss} at step 7 \(epoch 2, learning rate 0\.0509\d+\); lower"):
        recorder.end_step(7, loss)
    assert not recorder.rows


def test_a_gradient_that_is_not_finite_names_the_step_and_the_images(config, clock):
    run = RunFolder.start(config, "keras")
    recorder = Recorder(run, STEPS, np.linspace(0.1, 0.01, 12),
                        name_images=lambda step: [f"{step}{i}.png" for i in range(6)])
    recorder.begin_epoch()
    recorder.end_step(6, 1.0)
    with pytest.raises(UserError, match=r"^the gradient's norm is inf at step 7 .* 60\.png, 61\.png, 62\.png"):
        recorder.end_step(7, 1.0, math.inf)
    listed = json.loads((run.folder / "nonfinite.json").read_text())
    assert (listed["step"], listed["epoch"], listed["value"], len(listed["images"])) == (7, 2, "inf", 6)


@pytest.mark.parametrize(("every", "steps", "due"), [
    (0, [1, 2, 3, 4], []), (2, [1, 2, 3, 4, 5, 6], [2, 6]), (3, [2, 4, 6], [6]), (1, [2, 3, 4], [2, 3])])
def test_checkpoints_are_due_within_an_epoch_but_not_at_its_end(config, clock, every, steps, due):
    config.train.checkpoint_every_steps = every
    recorder = start(config)
    recorder.begin_epoch()
    found = []
    for step in steps:
        recorder.end_step(step, 1.0)
        if recorder.is_checkpoint_due(step):
            found.append(step)
    assert found == due


@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT")])
def test_a_signal_is_remembered_until_the_next_step(config, clock, number, name):
    handler = signal.getsignal(number)
    with start(config) as recorder:
        recorder.begin_epoch()
        recorder.end_step(1, 1.0)
        assert not recorder.is_checkpoint_due(1)
        os.kill(os.getpid(), number)
        assert recorder.is_checkpoint_due(1)
        stopped = recorder.explain_stop(1, recorder.stop.signal)
        assert stopped.signal == number
        assert str(stopped).startswith(f"stopped by {name} after step 1, which is saved; go on with resume=")
        if number == signal.SIGINT:
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)  # the user means it
    assert signal.getsignal(number) is handler


class ResourceExhaustedError(Exception):
    """Named like TensorFlow's."""


class UnavailableError(Exception):
    """Named like TensorFlow's."""


@pytest.mark.parametrize(("error", "says"), [
    (MemoryError(), r"train\.batch_size=10 did not fit into memory; split it with train\.accumulate=2, or try 5"),
    (ResourceExhaustedError("OOM when allocating tensor"), "did not fit into memory"),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "did not fit into memory"),
    (RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer [127.0.0.1]:1"), "another process of this"),
    (UnavailableError("Socket closed"), "another process of this run ended"),
])
def test_what_a_machine_lacks_is_told_in_a_line(config, error, says):
    recorder = start(config)
    recorder.begin_epoch()
    with pytest.raises(UserError, match=says), recorder:
        raise error


@pytest.mark.parametrize(("accumulate", "way_out"), [(2, "split it with train.accumulate=5, or try 5, a smaller"),
                                                     (10, "try 5, a smaller")])
def test_a_batch_is_split_into_parts_of_one_size(config, accumulate, way_out):
    config.train.accumulate = accumulate
    recorder = start(config)
    recorder.begin_epoch()
    with pytest.raises(UserError, match=f"did not fit into memory; {way_out}"), recorder:
        raise MemoryError


def test_what_evaluation_lacks_is_not_blamed_on_training(config, clock):
    config.train.eval_batch_size = 100
    recorder = start(config)
    recorder.begin_epoch()
    recorder.end_training_pass()
    says = r"^train\.eval_batch_size=100 did not fit into memory; try 50, a smaller"
    with pytest.raises(UserError, match=says), recorder:
        raise MemoryError


def test_a_mistake_of_ours_stays_what_it_is(config):
    with pytest.raises(RuntimeError, match="shapes"), start(config):
        raise RuntimeError("shapes do not fit")
