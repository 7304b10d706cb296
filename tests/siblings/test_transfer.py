"""A frozen backbone stays as it is, to the last bit; unfrozen, it goes on alike in both siblings."""

import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from shared.config import Config
from shared.parity.plan import change_config
from shared.training.schedule import is_frozen
from shared.weights.initial import draw_initial_weights
from tests.conftest import train

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


@pytest.mark.slow
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
