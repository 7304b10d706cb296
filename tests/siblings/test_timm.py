"""timm's models in the Lightning sibling: its checkpoints, distilled heads, BatchNorm over several processes."""

import importlib.util
import json
import sys
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest

from shared.errors import UserError
from tests.conftest import train
from tests.siblings.test_libraries import CLASSES, SIZE, TINY, answer, assert_refused, start
from tests.trainings import assert_close_training, only_run, run

pytestmark = [pytest.mark.timeout(300), pytest.mark.parametrize("sibling", ["lightning"], indirect=True),
              pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")]

TIMM = ("resnet18", "convnext_atto", "efficientnet_b0", "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224",
        "mobilenetv3_small_050")


def through_a_checkpoint_of_timm(sibling, name, folder):
    """Logits of timm's model and of ours, which starts from the folder that timm saved, of colours and of grey."""
    import timm
    import torch
    from timm.models import save_for_hf

    torch.manual_seed(1)
    torch.set_default_dtype(torch.float32)
    size = {"img_size": SIZE} if "patch16" in name else {}
    model = timm.create_model(name, num_classes=CLASSES, **size)
    with torch.no_grad():  # statistics and scales too
        for tensor in model.state_dict().values():
            if tensor.dtype == torch.float32 and tensor.ndim == 1:
                tensor.add_(0.1 * torch.rand_like(tensor))
    model.pretrained_cfg |= {"crop_pct": 0.9, "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    save_for_hf(model, folder, safe_serialization=True)
    model.double()
    images = np.random.default_rng(0).normal(size=(2, SIZE, SIZE, 3))
    found, said = [], []
    for channels in (3, 1):
        config, _, ours, line = start(sibling, f"timm:{name}", f"model.pretrained={folder}", channels=channels)
        shown = images[..., :channels]
        found.append((answer(sibling, ours, shown), answer(sibling, model, np.repeat(shown, 3 // channels, axis=-1))))
        said.append(line)
    other = start(sibling, f"timm:{name}", f"model.pretrained={folder}", classes=5, size=2 * SIZE)[3]
    return found, said, other, config


@pytest.mark.parametrize("name", TIMM)
def test_a_checkpoint_of_timm_gives_timms_logits(sibling, tmp_path, name):
    found, said, other, config = sibling.call(through_a_checkpoint_of_timm, name, str(tmp_path))
    for (ours, timms), tolerance in zip(found, (1e-9, 1e-6), strict=True):  # a sum over colours is kept in fp32
        assert np.ptp(timms) > 1e-3
        np.testing.assert_allclose(ours, timms, rtol=0, atol=tolerance * np.abs(timms).max())
    assert said == [f"weights from {tmp_path}"] * 2
    heads = json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]["classifier"]
    tensors = [f"{head}.{part}" for head in ([heads] if isinstance(heads, str) else heads)
               for part in ("weight", "bias")]
    assert other == f"weights from {tmp_path}; {', '.join(tensors)} drawn anew for 5 classes"
    assert (config.dataset.mean, config.dataset.std) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert (config.dataset.interpolation, config.dataset.center_crop) == ("bicubic", 0.9)


def frozen_names(sibling, name):
    """The parameters that train, and the learning rates of the optimizer's groups, with a frozen backbone."""
    from lightning_project.callbacks import BackboneFreezer
    from lightning_project.optim import build_optimizer

    config, _, model, _ = start(sibling, name, "model.freeze=backbone", "optimizer.backbone_lr_factor=0.5")
    trainer, classifier = SimpleNamespace(current_epoch=0), SimpleNamespace(model=model.train())
    BackboneFreezer(config).on_train_batch_start(trainer, classifier, None, 0)
    rates = {group["lr"] for group in build_optimizer(config, model, set()).param_groups if group["params"]}
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad], rates, config.optimizer.lr


def test_both_heads_of_a_distilled_model_train(sibling):
    names, rates, rate = sibling.call(frozen_names, "timm:deit_tiny_distilled_patch16_224")
    assert names == ["head.weight", "head.bias", "head_dist.weight", "head_dist.bias"]
    assert rates == {rate, rate / 2}


@pytest.mark.slow
def test_two_processes_normalise_over_the_whole_batch(sibling, tmp_path):
    words = (*TINY, "model.name=timm:mobilenetv3_small_050", "train.epochs=1")
    one = sibling.call(train, str(tmp_path / "one"), *words)
    assert one["error"] is None, one["error"]
    two = run("lightning", tmp_path / "two", *words, "hardware.devices=2")
    assert two.code == 0, two.err[-3000:]
    assert_close_training(one["run"], only_run(tmp_path / "two", "lightning"))


def synchronised(sibling, name, on_gpu):
    import torch

    from lightning_project.models.library import create_model, synchronise

    with torch.device("meta"):
        model = create_model(name, 3, CLASSES, 224)
    before = model.state_dict()
    try:
        model = synchronise(model, on_gpu)
    except UserError as error:
        return str(error)
    assert model.state_dict().keys() == before.keys()
    return {type(module).__name__ for module in model.modules() if hasattr(module, "running_var")}


@pytest.mark.parametrize(("name", "on_gpu", "kinds"), [
    ("timm:mobilenetv3_small_050", False, {"SyncBatchNorm2d", "SyncBatchNormAct2d"}),
    ("timm:mobilenetv3_small_050", True, {"SyncBatchNorm", "SyncBatchNormAct"}),
    ("timm:levit_128s", True, {"SyncBatchNorm"}),
    ("timm:levit_128s", False, "hardware.sync_batchnorm=true cannot synchronise timm's BatchNorm1d over CPU processes; "
     "set hardware.sync_batchnorm=false, or hardware.devices=1"),
])
def test_batchnorm_of_timm_is_synchronised_or_refused(sibling, name, on_gpu, kinds):
    found = sibling.call(synchronised, name, on_gpu)
    assert found == kinds if isinstance(kinds, str) else found and found <= kinds


def without_timm(sibling):
    from lightning_project import models

    models.find_entry("timm:resnet18")  # so that nothing else is imported for the first time below
    with mock.patch.dict(sys.modules, {"timm": None}):
        del sys.modules["lightning_project.models.library"]
        with pytest.raises(UserError) as raised:
            models.find_entry("timm:resnet18")
    return str(raised.value)


def test_where_timm_is_not_installed_a_line_says_what_to_install(sibling):
    assert "install the extra timm" in sibling.call(without_timm)


@pytest.mark.parametrize(("words", "says"), [
    ("model.name=timm:resnet81", "has no model 'resnet81'; did you mean resnet18 or "),
    ("model.name=timm:resnet18.a", "has no weights 'a' of resnet18; choose one of a1_in1k, "),
    ("model.name=timm:qwen3_vit_88m_enc", "is no classifier; choose another"),
    ("model.name=timm:inception_v3", r"does not take images of 32 pixels .*dataset\.image_size=299"),
    ("model.name=timm:vgg11 model.stochastic_depth=0.1", r"stochastic_depth=0\.1 is not for .*timm:vgg11"),
    ("model.name=timm:resnet18 model.pretrained=nowhere", "config.json and model.safetensors as timm"),
    ("model.name=timm:resnet18 model.pretrained=true", "resnet18.a1_in1k cannot be loaded .*; go online"),
    ("model.name=timm:resnet18 model.stem=small", r"model\.stem=small is not for .*timm:resnet18"),
])
def test_what_the_library_has_not_is_refused_in_a_line(sibling, tmp_path, words, says):
    assert_refused(sibling, tmp_path, words, says)
