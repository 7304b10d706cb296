"""Settings that contradict one another, and those that one sibling alone honours."""

import subprocess
import sys

import pytest

from shared.config import (
    Config,
    list_keys,
    require_support,
)
from shared.config.help import format_help
from shared.errors import UserError
from shared.machine.files import REPOSITORY
from shared.machine.interpreters import list_siblings
from tests.shared.command_lines import parsed, refused

FILES = ("dataset.name=image_folder", "dataset.root=.")


# Contradictions

@pytest.mark.parametrize(("words", "hint"), [
    (["schedule.warmup_epochs=3", "train.epochs=2"], "schedule.warmup_epochs=3 is longer than train.epochs=2"),
    (["schedule.warmup_epochs=.inf"], "schedule.warmup_epochs=inf is longer than train.epochs="),
    (["optimizer.momentum=0"], "optimizer.nesterov=true needs optimizer.momentum above 0"),
    (["dataset.name=image_folder"], "dataset.name=image_folder needs dataset.root"),
    (["dataset.name=imagenet_mini"], "dataset.name=imagenet_mini needs dataset.root"),
    (["dataset.root=."], "dataset.root=. is not for dataset.name=digits, which needs no files"),
    (["dataset.mean=[.nan]", "dataset.std=[1]"], "need a value for all channels or one for each of three"),
    (["dataset.mean=[0]", "dataset.std=[.inf]"], "need a value for all channels"),
    (["dataset.mean=[0,0]", "dataset.std=[1,1]"], "need a value for all channels"),
    (["dataset.mean=[0]", "dataset.std=[0]"], "and std above 0"),
    (["dataset.name=imagenette", "dataset.val_fraction=0"], "dataset.val_fraction=0 leaves no images to choose"),
    (["dataset.name=cifar10", "dataset.root=/no/such/folder"], "dataset.root='/no/such/folder' is not a folder"),
    (["dataset.name=cifar10", "dataset.root=~nobody_at_all/x"],
     "dataset.root='~nobody_at_all/x' is in the home of nobody known here"),
    (["output_dir=~nobody_at_all/x"], "output_dir='~nobody_at_all/x' is in the home of nobody known here"),
    (["output_dir=README.md"], "output_dir='README.md' is a file; name a folder"),
    (["resume=no/such/run"], "resume='no/such/run' is not a folder; name a run folder, or use none or auto"),
    (["dataset.val_fraction=0"], "dataset.val_fraction=0 leaves no images to choose the best epoch by"),
    (["hardware.precision=fp16", "hardware.accelerator=cpu"], "hardware.precision=fp16 needs a GPU"),
    (["hardware.devices=3"], "cannot be shared equally by 3 devices; the nearest sizes that can are 63 and 66"),
    (["hardware.devices=2", "hardware.num_nodes=2", "train.batch_size=3"], "the nearest sizes that can are 4"),
    (["hardware.devices=2", "augment.mixup_alpha=1", "train.batch_size=62"], "in pairs because of mixup or CutMix; the "
                                                                             "nearest sizes that can are 60 and 64"),
    (["train.accumulate=3"], "cannot be shared equally by 1 devices in train.accumulate=3 parts; the nearest"),
    (["hardware.devices=2", "hardware.strategy=single"], "hardware.strategy=single uses one device"),
    (["hardware.accelerator=cpu", "hardware.strategy=fsdp"], "hardware.strategy=fsdp needs GPUs"),
    (["hardware.devices=0", "hardware.strategy=single"], "hardware.strategy=single uses one device"),
    (["hardware.strategy=fsdp", "train.grad_clip=1"], "train.grad_clip=1 is not possible with hardware.strategy=fsdp"),
    (["hardware.strategy=fsdp", "hardware.precision=fp64"], "hardware.precision=fp64 is not possible"),
    (["hardware.steps_per_execution=2", "train.accumulate=2"], "is for one machine and train.accumulate=1"),
    (["train.batch_size=8", "train.accumulate=8"], "leaves BatchNorm a single image; raise train.batch_size"),
    (["hardware.strategy=fsdp", "train.ema_decay=0.9"], "train.ema_decay=0.9 needs the whole model on each device"),
    (["hardware.strategy=fsdp", "optimizer.name=muon"], "optimizer.name=muon needs whole matrices"),
    (["hardware.steps_per_execution=2", "train.ema_decay=0.9"], "train.ema_decay=0.9 follows each step"),
    (["hardware.steps_per_execution=2", "train.lookahead_every=5"], "train.lookahead_every=5 follows each step"),
    (["hardware.strategy=fsdp", "train.lookahead_every=5"], "train.lookahead_every=5 needs the whole model"),
    (["hardware.strategy=fsdp", "optimizer.norm_bias_lr_factor=64"], "optimizer.norm_bias_lr_factor=64 needs the"),
    (["optimizer.name=lion", "optimizer.beta1=0"], "optimizer.beta1=0 is not for optimizer.name=lion"),
    (["hardware.strategy=fsdp", "model.freeze=backbone"], "hardware.strategy=fsdp shares out parameters"),
    (["hardware.precision=fp64", "augment.policy=augmix"], "augment.policy=augmix works on 8-bit images"),
    (["model.gradient_checkpointing=true"],
     "model.gradient_checkpointing=true is not for model.name=resnet18: its BatchNorm"),
    (["model.name=efficientnet_b0", "model.gradient_checkpointing=true"], "model.name=efficientnet_b0: its BatchNorm"),
    (["augment.crop_fill=reflect", "augment.crop=resized"], "augment.crop_fill=reflect is not for augment.crop"),
    (["augment.alternating_flip=true"], "augment.alternating_flip=true has nothing to alternate; set augment.flip"),
    (["augment.flip=true", "augment.alternating_flip=true", "dataset.balance=oversample"],
     "augment.alternating_flip=true is not for dataset.balance=oversample"),
    (["dataset.decode=fast"], "dataset.decode=fast is not for dataset.name=digits, whose images are no files"),
    (["dataset.name=fashion_mnist", "dataset.decode=fast"], "fast is not for dataset.name=fashion_mnist"),
    (["dataset.cache=disk"], "dataset.cache=disk is not for dataset.name=digits, whose images are no files"),
    ([*FILES, "dataset.cache=disk", "dataset.decode=fast", "augment.crop=resized"],
     "dataset.cache=disk keeps an image in one size, and dataset.decode=fast takes another one for each area"),
    ([*FILES, "dataset.cache=memory", "hardware.devices=2"], "dataset.cache=memory is for hardware.devices=1"),
    ([*FILES, "dataset.decode=coarse", "model.pretrained=true"],
     "dataset.decode=coarse is not for model.pretrained=true, which was trained with whole pixels; leave it out"),
    (["dataset.variant=full"], "dataset.variant=full is not for dataset.name=digits but for imagenette"),
    (["dataset.name=imagenette", "dataset.variant=64"], "dataset.variant='64' is not one of 160, 320, full"),
    (["model.stem=small", "model.name=vit_tiny"], "model.stem=small is not for model.name=vit_tiny; leave it out"),
    (["model.patch_size=8"],
     "model.patch_size=8 is not for model.name=resnet18; leave it out, or take one of vit_tiny"),
    (["train.focal_gamma=1"], "train.focal_gamma=1 is not for train.loss=cross_entropy; set train.loss=focal"),
    (["train.metrics=[top5,top5]"], "train.metrics names top5 twice"),
    (["train.monitor=val/acuracy"], "did you mean 'val/accuracy'? For a metric of your own say train.monitor_mode="),
    (["train.monitor=val/top3"], "train.monitor=val/top3 is none of val/accuracy"),
    (["train.monitor=val/top5"], "train.monitor=val/top5 is not computed; add train.metrics=[top5]"),
    (["train.monitor=val/loss", "train.monitor_mode=max"],
     "contradicts train.monitor=val/loss, of which min is better"),
    (["train.monitor=test/accuracy"], "test images must not choose the best epoch"),
    (["train.monitor="], "train.monitor is empty"), (["model.name=timm:"], "model.name='timm:' is not one of"),
    (["experiment=a/b"], "experiment='a/b' becomes a folder's name"), (["experiment=.."], "experiment='..' becomes"),
])
def test_contradictions_are_refused(words, hint, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").touch()
    assert hint in refused(*words)


@pytest.mark.parametrize("words", [
    ["schedule.warmup_epochs=2", "train.epochs=2"], ["optimizer.momentum=0", "optimizer.nesterov=false"],
    ["optimizer.momentum=0", "optimizer.name=adam"], ["hardware.precision=fp16", "hardware.accelerator=gpu"],
    ["hardware.precision=fp16"], ["hardware.precision=fp64"], ["model.freeze=backbone", "train.unfreeze_epoch=9"],
    ["dataset.val_fraction=0.9"], ["resume=auto"], ["init_from=x.safetensors"], ["resume=."], ["output_dir=new/one"],
    ["model.name=vit_tiny", "model.gradient_checkpointing=true"],
    ["train.monitor=val/top3", "train.monitor_mode=min"], ["train.monitor=train/loss"], ["model.name=timm:any"],
    ["train.monitor=val/top5", "train.metrics=[top5]"],
    ["model.stem=large", "model.name=vit_tiny", "model.pretrained=x"],
    ["dataset.mean=[0.5]", "dataset.std=[0.5]"], ["dataset.name=cifar10", "dataset.root=."],
    ["dataset.name=image_folder", "dataset.root=.", "dataset.test_fraction=0.5", "dataset.val_fraction=0.5"],
])
def test_what_looks_like_a_contradiction_but_is_none_passes(words, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    parsed(*words)


def test_group_is_the_experiment_or_data_set_and_model():
    assert Config().group == "digits_resnet18"
    assert Config(experiment="mine").group == "mine"


# Which sibling honours what

@pytest.mark.parametrize(("words", "sibling", "hint"), [
    (["model.name=timm:resnet18"], "keras", "model.name=timm:resnet18 is for PyTorch Lightning alone; leave it out"),
    (["model.name=keras:ResNet50"], "lightning", "model.name=keras:ResNet50 is for Keras alone"),
    (["hardware.strategy=fsdp"], "keras", "hardware.strategy=fsdp is for PyTorch Lightning alone"),
    (["hardware.accelerator=tpu"], "lightning", "hardware.accelerator=tpu is for Keras alone"),
])
def test_a_key_that_the_other_sibling_alone_honours_is_an_error(words, sibling, hint):
    config = parsed(*words)
    with pytest.raises(UserError) as refusal:
        require_support(config, sibling)
    assert str(refusal.value).startswith(hint)
    other = {"lightning": "keras", "keras": "lightning"}[sibling]
    assert (f", or train with {other}_project" in str(refusal.value)) == (other in list_siblings())
    assert require_support(config, other) == []


def test_a_key_that_changes_only_speed_is_a_remark():
    config = parsed("hardware.steps_per_execution=5")
    assert require_support(config, "lightning") == [
        "hardware.steps_per_execution=5 is for Keras alone and is left out here; it would change nothing but speed"]
    assert require_support(config, "keras") == []
    assert require_support(Config(), "lightning") == require_support(Config(), "keras") == []


def test_help_and_the_table_of_keys_say_who_honours_what():
    lines = format_help("train.py", "Train.").splitlines()
    for key, words in (("hardware.steps_per_execution=1", "[Keras alone; changes nothing but speed]"),
                       ("model.name=resnet18", "[timm:NAME: PyTorch Lightning alone; keras:NAME: Keras alone]")):
        place = next(number for number, line in enumerate(lines) if line.strip().startswith(key))
        assert words in lines[place + 2]
    done = subprocess.run([sys.executable, "-m", "shared.config"], cwd=REPOSITORY, capture_output=True, text=True,
                          check=True)
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in done.stdout.splitlines()[2:]}
    assert rows.keys() == list_keys().keys()
    assert rows["hardware.steps_per_execution"].endswith("| ignored, speed only | yes |")
    assert rows["seed"].endswith("| yes | yes |")
    assert rows["hardware.strategy"].endswith("| yes | yes, but for fsdp |")
