"""A frozen backbone stays as it is, to the last bit; unfrozen, it goes on alike in both siblings."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file

from shared.batches.data import load_data
from shared.config import Config
from shared.parity import __main__ as command
from shared.parity.findings import Answer
from shared.parity.plan import change_config, plan_fit, strip_config
from shared.training.schedule import is_frozen
from shared.weights.initial import draw_initial_weights
from tests.conftest import needs_both, train

HEAD = ("fc.weight", "fc.bias")


def test_epochs_that_are_frozen():
    config = change_config(Config(), model__freeze="backbone")
    assert [is_frozen(config, epoch) for epoch in range(3)] == [True, True, True]
    config.train.unfreeze_epoch = 2
    assert [is_frozen(config, epoch) for epoch in range(4)] == [True, True, False, False]
    assert not is_frozen(Config(), 0)


def test_nothing_but_the_head_moves(sibling, tmp_path):
    # Two epochs, so that one of them follows a validation, after which BatchNorm might count again.
    done = sibling.call(train, str(tmp_path), "model.freeze=backbone", "train.epochs=2", "train.monitor=val/loss")
    assert done["error"] is None, done["error"]
    found = load_file(done["run"] / "best.safetensors")
    first = draw_initial_weights({name: tensor.shape for name, tensor in found.items()}, 0)
    assert {name for name in found if found[name].tobytes() != first[name].tobytes()} == set(HEAD)
    assert any(name.endswith("running_var") for name in found)


@needs_both
@pytest.mark.timeout(300)
def test_both_siblings_unfreeze_alike(tmp_path):
    base = strip_config(command.parse_command_line([]))
    base.hardware.threads = 1
    task = plan_fit(base, load_data(base), "adamw", 10)  # of two epochs of five steps
    tasks = [replace(task, config=change_config(
        task.config, model__freeze="backbone", train__unfreeze_epoch=1, optimizer__backbone_lr_factor=0.1))]
    command.run_probes({"Lightning": tasks, "Keras": tasks}, tmp_path)
    findings = command.judge_answers(tasks, tmp_path / "Lightning", tmp_path / "Keras")
    assert [finding for finding in findings if not finding.passes] == []
    for label in ("Lightning", "Keras"):
        arrays = Answer(label, tmp_path / label, "fit-adamw").arrays
        shapes = {name.removeprefix("step 1 "): arrays[name].shape for name in arrays if name.startswith("step 1 ")}
        first = draw_initial_weights(shapes, base.seed)
        moved = {step: {name for name in shapes if not np.array_equal(arrays[f"step {step} {name}"], first[name])}
                 for step in (1, 10)}
        assert moved == {1: set(HEAD), 10: set(shapes)}


def test_both_phases_are_compiled(sibling, tmp_path):
    if sibling.name == "lightning" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        pytest.skip("torch.compile needs a C++ compiler")
    words = ("model.freeze=backbone", "train.unfreeze_epoch=1", "hardware.precision=fp64", "train.ema_decay=0.5",
             "dataset.limit_train=110")
    found = []
    for choice in ("false", "true"):
        done = sibling.call(train, str(tmp_path / choice), *words, f"hardware.compile={choice}")
        assert done["error"] is None, done["error"]
        found.append(load_file(done["run"] / "best.safetensors"))
    for name, tensor in found[0].items():
        np.testing.assert_allclose(found[1][name], tensor, rtol=0, atol=1e-9, err_msg=name)
