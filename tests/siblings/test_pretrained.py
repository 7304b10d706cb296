"""Checkpoints in timm's format: through our code into both siblings, with the logits of timm's own model."""

import importlib
import importlib.util
import shutil
import tarfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from safetensors.numpy import load_file

from shared.machine.interpreters import is_installed
from shared.models import MODELS
from shared.training.best import BestEpoch
from shared.weights.file import save_weights
from shared.weights.start import choose_starting_weights
from tests.conftest import Sibling, train
from tests.siblings.test_zoo import start

needs_timm = pytest.mark.skipif(not (is_installed("lightning") and importlib.util.find_spec("timm")),
                                reason="timm or PyTorch is not installed")
SIZE = 64  # pixels, 16 patches in place of a ViT's own 196
LARGE = ("resnet50", "efficientnet_b3", "vit_base")


def save_with_timm(_, name, folder, classes, size=SIZE):
    """Save timm's model with random weights and statistics; return its logits (2, classes) in float64, in evaluation
    and in training mode."""
    import timm
    import torch
    from timm.models import save_for_hf

    torch.manual_seed(0)
    torch.set_default_dtype(torch.float32)
    options = {"img_size": size} if "vit" in name else {}
    model = timm.create_model(MODELS[name].published.timm, num_classes=classes, **options)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.dtype == torch.float32 and tensor.ndim == 1:
                tensor.add_(0.1 * torch.rand_like(tensor))
    model.pretrained_cfg["crop_pct"] = 0.9
    save_for_hf(model, folder, safe_serialization=True)
    images = torch.linspace(-1, 1, 2 * 3 * size * size, dtype=torch.float64).reshape(2, 3, size, size).sin()
    with torch.no_grad():
        return [model.double().train(training)(images).numpy() for training in (False, True)]


def logits_of(sibling, name, folder, classes, size=SIZE):
    """The same images through our model, started from the checkpoint; and what tensors leave it otherwise than they
    came."""
    config, models, model = start(sibling, name, f"model.pretrained={folder}", "hardware.precision=fp64", size=size,
                                  classes=classes)
    weights, _ = choose_starting_weights(config, MODELS[config.model.name], models.neutral_weights(model))
    models.load_weights(model, weights)
    back = models.neutral_weights(model)
    changed = [name for name in weights if not np.array_equal(back.pop(name), weights[name])] + list(back)
    images = np.sin(np.linspace(-1, 1, 2 * 3 * size * size).reshape(2, 3, size, size))
    if sibling == "lightning":
        import torch

        with torch.no_grad():
            return [model.train(training)(torch.from_numpy(images)).numpy() for training in (False, True)], changed
    images = images.transpose(0, 2, 3, 1)
    return [model(images, training=training).numpy() for training in (False, True)], changed


@pytest.fixture(scope="module")
def with_torch():
    process = Sibling("lightning")
    yield process
    process.pool.shutdown()


@pytest.fixture(scope="module")
def saved(with_torch, tmp_path_factory):
    """`saved(name)`: a folder that timm wrote, and timm's logits."""
    kept = {}

    def save_weights(name):
        if name not in kept:
            folder = tmp_path_factory.mktemp(name)
            kept[name] = folder, with_torch.call(save_with_timm, name, str(folder), 7)
        return kept[name]
    yield save_weights
    for folder, _ in kept.values():  # 800 MB, which pytest would keep for three sessions
        shutil.rmtree(folder)


@needs_timm
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name
                                  for name, entry in MODELS.items() if entry.published])
def test_logits_are_timms_and_weights_travel_both_ways(saved, sibling, name):
    folder, expected = saved(name)
    found, changed = sibling.call(logits_of, name, str(folder), 7)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8 * np.abs(expected).max())
    assert changed == []


def resized_by_timm(_, place, size):
    import torch
    from timm.layers import resample_abs_pos_embed

    return resample_abs_pos_embed(torch.from_numpy(place), [size, size], num_prefix_tokens=1).numpy()


@needs_timm
@pytest.mark.parametrize("size", [4, 9, 24])
def test_a_position_embedding_is_scaled_as_in_timm(with_torch, size):
    from shared.weights.pretrained import resize_position_embedding

    place = np.random.default_rng(0).normal(size=(1, 1 + 14 * 14, 8)).astype(np.float32)
    expected = with_torch.call(resized_by_timm, place, size)
    np.testing.assert_allclose(resize_position_embedding(place, size**2), expected, atol=1e-5)


@pytest.fixture
def few_real_images(real_data, tmp_path):
    """The first images of each class of CIFAR-10, as JPEG files in folders: 12 to train, 3 to test."""
    with tarfile.open(real_data / "cifar10-jpeg.tar.gz") as tar:
        for member in tar:
            split, _, name = member.name.partition("/")
            if member.isfile() and int(Path(name).stem) < {"train": 12, "test": 3}[split]:
                tar.extract(member, tmp_path / "images", filter="data")
    return tmp_path / "images"


def trained_with_weights_of_each_epoch(sibling, *words):
    """A training whose every epoch is kept as if it were the best, and the weights of each."""
    checkpoints, kept, update = importlib.import_module(f"{sibling}_project.checkpoints"), [], BestEpoch.update

    def always(best, value, epoch):
        update(best, value, epoch)
        return True

    def keep(path, weights, *rest):
        kept.append({name: tensor.copy() for name, tensor in weights.items()})
        save_weights(path, weights, *rest)
    with mock.patch.object(checkpoints, "save_weights", keep), mock.patch.object(BestEpoch, "update", always):
        return train(sibling, *words), kept


@needs_timm
def test_both_phases_of_the_transfer_preset_on_real_images(with_torch, sibling, few_real_images, tmp_path):
    with_torch.call(save_with_timm, "efficientnet_b0", str(tmp_path / "checkpoint"), 1000)
    done, epochs = sibling.call(
        trained_with_weights_of_each_epoch, str(tmp_path / "runs"), "configs/image_folder_efficientnet_b0.yaml",
        f"dataset.root={few_real_images}", f"model.pretrained={tmp_path / 'checkpoint'}", "dataset.image_size=32",
        "train.epochs=2", "train.unfreeze_epoch=1", "schedule.warmup_epochs=0", "hardware.workers=0")
    assert done["error"] is None, done["error"]
    assert "classifier.weight, classifier.bias drawn anew for 10 classes" in done["err"]
    assert "nothing but classifier trains in the first 1 of 2 epochs" in done["err"]
    given = load_file(tmp_path / "checkpoint" / "model.safetensors")
    head = {"classifier.weight", "classifier.bias"}
    frozen, freed = ({name for name in weights.keys() - head if not np.array_equal(weights[name], given[name])}
                     for weights in epochs)
    assert frozen == set()
    assert freed == epochs[0].keys() - head
    assert np.isfinite(done["result"]["test/loss"])
