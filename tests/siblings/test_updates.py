"""Updates in parts, and updates that are left out."""

from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.conftest import SMALL, train


def in_parts(sibling, folder, parts):
    """A training in float64 of a small ViT, which has no BatchNorm that would see the parts one at a time."""
    from shared.models import VITS

    with mock.patch.dict(VITS, {"vit_tiny": (24, 2, 2)}):
        return train(sibling, folder, "model.name=vit_tiny", "hardware.precision=fp64", "optimizer.name=adamw",
                     "train.epochs=1", "train.grad_clip=0.5", "train.label_smoothing=0.1", f"train.accumulate={parts}")


def test_a_batch_in_parts_is_the_whole_batch(sibling, tmp_path):
    whole, parts = (sibling.call(in_parts, str(tmp_path / str(number)), number) for number in (1, 4))
    assert whole["error"] is None, whole["error"]
    assert parts["error"] is None, parts["error"]
    expected, found = (load_file(done["run"] / "best.safetensors") for done in (whole, parts))
    for name, weights in expected.items():
        np.testing.assert_allclose(found[name], weights, rtol=0, atol=1e-12, err_msg=name)


def seeds(_):
    """What PyTorch draws from in the two parts of the first batch and in the first of the second."""
    from itertools import islice

    import torch

    from lightning_project.data import DataModule
    from lightning_project.runtime import build_runtime
    from shared.config import parse_config
    from shared.data.loading import load_data

    config = parse_config(["train.accumulate=2", "hardware.precision=fp32", "hardware.threads=1"], "", "")
    module = DataModule(config, load_data(config), build_runtime(config))
    module.trainer = SimpleNamespace(training=True, global_rank=0, global_step=0)
    found = []
    for batch in islice(module.train_dataloader(), 3):
        module.on_after_batch_transfer(batch, 0)
        found.append(torch.initial_seed())
    return found


def test_no_two_parts_draw_the_same(sibling):
    if sibling.name != "lightning":
        pytest.skip("Keras' generators go on from part to part")
    assert len(set(sibling.call(seeds))) == 3


def laid_out(_, precision):
    """Of a model before and after `prepare_model`: outputs and gradients, and the memory formats of its kernels."""
    import torch

    from lightning_project.models import build_model
    from lightning_project.runtime import build_runtime
    from shared.config import parse_config

    config = parse_config(["hardware.threads=1", f"hardware.precision={precision}", "model.stem=small"], "", "")
    runtime = build_runtime(config)
    torch.manual_seed(0)
    model = build_model(config, SimpleNamespace(channels=3, classes=("a", "b"), image_size=16))
    images = torch.randn(2, 3, 16, 16, dtype=runtime.dtype).to(memory_format=torch.channels_last)

    def compute():
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            outputs = model(images)
        outputs.float().square().sum().backward()
        return [outputs.detach().float().numpy(), *(one.grad.numpy().copy() for one in model.parameters())]
    before = compute()
    runtime.prepare_model(model)
    kernels = [one for one in model.parameters() if one.dim() == 4]
    return before, compute(), [one.is_contiguous(memory_format=torch.channels_last) for one in kernels]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp64"])
def test_weights_laid_out_as_images_compute_the_same_bits(sibling, precision):
    if sibling.name != "lightning":
        pytest.skip("Keras has one layout")
    before, after, are_laid_out = sibling.call(laid_out, precision)
    assert all(are_laid_out)
    assert len(are_laid_out) == 20
    assert [one.tobytes() for one in before] == [one.tobytes() for one in after]


def overflown(_):
    """What a step under loss scaling does whose gradient is finite, and one whose gradient is not."""
    import keras

    from keras_project.classifier import compile_classifier
    from keras_project.models import build_model, neutral_weights
    from keras_project.runtime import build_runtime
    from shared.config import parse_config
    from shared.models import RESNETS

    config = parse_config(["hardware.threads=1", "hardware.precision=fp32", "train.ema_decay=0.5"], "", "")
    build_runtime(config)
    keras.config.set_dtype_policy("mixed_float16")  # which our configs refuse on a CPU
    with mock.patch.dict(RESNETS, SMALL):
        model = build_model(config, SimpleNamespace(channels=1, classes=tuple("abc"), image_size=8))
    compile_classifier(config, model, steps=10)
    keras.config.set_dtype_policy("float32")
    model.optimizer.dynamic_scale.assign(16.0)  # at its own beginning, 2^15, random weights may overflow too
    images, targets = np.ones((4, 8, 8, 1), np.float32), np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    found = []
    for value in (1.0, np.inf):
        before = neutral_weights(model)
        images[0, 0, 0, 0] = value
        model.train_on_batch(images, targets)
        after = neutral_weights(model)
        moved = any(not np.array_equal(before[name], after[name]) for name in ("fc.weight", "conv1.weight"))
        found.append((moved, int(model.optimizer.iterations), float(model.optimizer.dynamic_scale)))
    return found


def test_a_step_that_overflows_is_left_out_and_counted(sibling):
    if sibling.name != "keras":
        pytest.skip("Lightning takes PyTorch's scaler, which does so")
    assert sibling.call(overflown) == [(True, 1, 16.0), (False, 2, 8.0)]


def test_several_steps_an_execution_are_the_same_steps(sibling, tmp_path):
    one, three = (sibling.call(train, str(tmp_path / str(number)), "train.epochs=1", "hardware.precision=fp64",
                               f"hardware.steps_per_execution={number}") for number in (1, 3))
    assert three["error"] is None, three["error"]
    expected, found = (load_file(done["run"] / "best.safetensors") for done in (one, three))
    for name, weights in expected.items():
        np.testing.assert_allclose(found[name], weights, rtol=0, atol=1e-12, err_msg=name)


def cut_before_its_result(sibling, folder, *words):
    """A training that is interrupted when nothing but its result is missing."""
    from shared.training.recorder import Recorder

    with mock.patch.object(Recorder, "finish", side_effect=KeyboardInterrupt):
        return train(sibling, folder, *words)


def test_a_run_that_early_stopping_has_ended_trains_no_more(sibling, tmp_path):
    words = ("train.epochs=9", "train.early_stopping_patience=2", "optimizer.lr=1e-12", "schedule.name=constant",
             "schedule.warmup_epochs=0", "train.monitor=val/accuracy")
    cut = sibling.call(cut_before_its_result, str(tmp_path), *words)
    rows = (cut["run"] / "metrics.jsonl").read_text()
    assert rows.count("val/loss") < 9
    resumed = sibling.call(train, str(tmp_path), "resume=auto", *words)
    assert resumed["error"] is None, resumed["error"]
    assert resumed["run"] == cut["run"]
    assert (cut["run"] / "metrics.jsonl").read_text() == rows
    assert resumed["result"]["epochs"] == rows.count("val/loss")
