"""The schema, how files and command line fill it, and what it refuses."""

import ast
import dataclasses
import subprocess
import sys

import pytest

from shared.config import (
    Config,
    flatten,
    get_value,
    list_keys,
    load_config,
    parse_config,
    require_support,
    to_dict,
    to_yaml,
    validate_config,
)
from shared.config.help import format_help
from shared.errors import UserError, extract_user_message
from shared.machine.files import REPOSITORY
from shared.machine.interpreters import list_siblings

QUICKSTART = ["configs/quickstart.yaml"]


def parsed(*words):
    return parse_config(list(words), "python train.py", "Train.")


def refused(*words):
    """The line that the user sees."""
    with pytest.raises(UserError) as caught:
        parsed(*words)
    line = extract_user_message(caught.value)
    assert len(line.splitlines()) == 1
    return line


@pytest.fixture
def written(tmp_path):
    def write(text, name="given.yaml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)
    return write


# Help and printing

def test_help_lists_every_key_with_type_default_unit_range_and_meaning(capsys):
    with pytest.raises(SystemExit) as left:
        parsed("train.epochs=3", "--help", "nonsense")
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert "usage: python train.py [file.yaml ...] [key=value ...]" in text
    lines = text.splitlines()
    for dotted, item in list_keys().items():
        head = next(i for i, line in enumerate(lines) if line.startswith(f"  {dotted}="))
        assert lines[head + 1] == f"      {item.metadata['meaning']}"
        assert item.metadata["unit"] in lines[head]
        assert all(choice in lines[head] for choice in item.metadata["choices"])
    for line in ("  train.batch_size=64  (int, images, at least 1)",
                 "  schedule.warmup_epochs=1.0  (float, epochs, at least 0)",
                 "  augment.flip=false  (bool)", "  tracking.tags=[]  (list of str)", "  init_from=''  (str)",
                 "  seed=0  (int, at least 0, at most 2147483647)",
                 "  augment.crop=pad  (str, none | pad | resized)"):
        assert line in lines


def test_every_field_states_a_meaning_and_a_default_within_its_range():
    for dotted, item in list_keys().items():
        assert len(item.metadata["meaning"]) > 10, dotted
    validate_config(Config())


def test_printed_config_parses_back_to_the_same_config(capsys, written):
    words = ["seed=7", "optimizer.lr=1e-3", "tracking.tags=[a, 'b: c', '3']", "augment.flip=true", "experiment='007'",
             "schedule.warmup_epochs=0.5", "dataset.name=imagenette", "dataset.variant=full"]
    with pytest.raises(SystemExit) as left:
        parsed(*words, "--print-config")
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert parsed(written(text)) == parsed(*words)


@pytest.mark.parametrize("name", ["off", "no", "null", "~", "1e3", "0x10", "1:30", "2024-01-01", "a: b", "# x", "é",
                                  " "])
def test_a_string_that_looks_like_something_else_survives_printing(written, name):
    config = Config(experiment=name)
    assert load_config(written(to_yaml(config))) == config


def test_config_as_dictionary_has_every_key_and_plain_values():
    found = flatten(to_dict(Config()))
    assert list(found) == list(list_keys())
    assert {type(value) for value in found.values()} == {str, int, float, bool, list}


# Merging

def test_files_merge_from_left_to_right_and_then_the_overrides(written):
    first = written("train: {epochs: 5, batch_size: 32}\nseed: 1\n", "first.yaml")
    second = written("train:\n  epochs: 6\noptimizer: {name: adam}\n", "second.yaml")
    config = parsed("seed=3", first, second, "optimizer.lr=0.5", "seed=4")
    assert (config.train.epochs, config.train.batch_size, config.optimizer.name, config.optimizer.lr, config.seed) == (
        6, 32, "adam", 0.5, 4)
    assert parsed(second, first).train.epochs == 5
    assert config.experiment == ""  # quickstart.yaml is only read where no file is named


def test_without_a_file_quickstart_runs():
    assert parsed().experiment == "quickstart"
    assert parsed() == parsed(*QUICKSTART)


def test_the_form_of_a_sweep_is_words_of_their_own():
    config = parsed("train.epochs=2", "optimizer.lr=0.01", "augment.flip=True", "optimizer.name=adamw")
    assert (config.train.epochs, config.optimizer.lr, config.augment.flip, config.optimizer.name) == (
        2, 0.01, True, "adamw")


def test_types_are_converted_where_nothing_is_lost():
    config = parsed("optimizer.lr=1", "schedule.warmup_epochs=0", "experiment=12", "dataset.name=imagenette",
                    "dataset.variant=320", "tracking.tags=[1]")
    assert config.optimizer.lr == 1.0
    assert type(config.optimizer.lr) is float
    assert (config.experiment, config.dataset.variant, config.tracking.tags) == ("12", "320", ["1"])


def test_a_preset_is_found_from_any_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert parsed("configs/cifar10_resnet18.yaml").dataset.name == "cifar10"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "cifar10_resnet18.yaml").write_text("seed: 5\n")
    assert parsed("configs/cifar10_resnet18.yaml").seed == 5  # the working folder comes first


def test_two_configs_share_no_list():
    Config().tracking.tags.append("mine")
    assert Config().tracking.tags == []


# Wrong keys, values, options

@pytest.mark.parametrize(("word", "hint"), [
    ("train.epoch=3", "unknown key 'train.epoch'; did you mean 'train.epochs'?"),
    ("optimiser.lr=3", "unknown key 'optimiser.lr'; did you mean 'optimizer.lr'?"),
    ("epochs=3", "unknown key 'epochs'; did you mean 'train.epochs'?"),
    ("optimizer.epochs=3", "unknown key 'optimizer.epochs'; did you mean 'train.epochs'?"),
    ("train.lr=3", "did you mean 'optimizer.lr'?"), ("optimiser.name=sgd", "did you mean 'optimizer.name'?"),
    ("zzz=3", "unknown key 'zzz'; see --help"), ("=3", "unknown key ''; see --help"),
    ("seed.deeper=3", "unknown key 'seed.deeper'; did you mean 'seed'?"),
    ("train=3", "'train' is a section, not a value; set one of its keys, such as 'train.epochs'"),
    ("model.name=resnet81", "model.name='resnet81' is not one of resnet18, resnet34"),
    ("dataset.name=cifar11", "did you mean 'cifar10'?"), ("tracking.mode=offlin", "did you mean 'offline'?"),
    ("--epochs=3", "unknown option '--epochs=3'; options are --help and --print-config, keys are key=value"),
    ("configs/quikstart.yaml", "does not exist; did you mean 'configs/quickstart.yaml'?"),
    ("configs/debug/overfitt.yaml", "did you mean 'configs/debug/overfit.yaml'?"),
    ("x" * 300, "cannot be read: File name too long"),
])
def test_a_wrong_name_is_told_with_the_nearest_right_one(word, hint):
    assert hint in refused(word)


@pytest.mark.parametrize(("text", "hint"), [
    ("train:\n  epoch: 3\n", "given.yaml: unknown key 'train.epoch'; did you mean 'train.epochs'?"),
    ("trian:\n  epochs: 3\n", "unknown key 'trian.epochs'; did you mean 'train.epochs'?"),
    ("train: 3\n", "'train' is a section, not a value"), ("train:\n", "'train' is a section, not a value"),
    ("1: 2\n", "unknown key '1'"),
])
def test_a_wrong_name_in_a_file_is_told_with_the_file(written, text, hint):
    assert hint in refused(written(text))


@pytest.mark.parametrize(("word", "hint"), [
    ("train.epochs=abc", "train.epochs='abc' is not of type int"), ("train.epochs=2.5", "is not of type int"),
    ("train.epochs=true", "train.epochs=True is not of type int"), ("train.epochs=[1]", "is not of type int"),
    ("optimizer.lr=fast", "optimizer.lr='fast' is not of type float"),
    ("optimizer.name=[sgd]", "optimizer.name=['sgd'] is not of type str"),
    ("augment.flip=maybe", "augment.flip='maybe' is not of type bool"),
    ("tracking.tags=a", "tracking.tags='a' is not of type list of str"),
    ("tracking.tags=[1,[2]]", "tracking.tags=[1, [2]] is not of type list of str"),
    ("tracking.tags=[a,{b: 1}]", "is not of type list of str"),
    ("dataset.mean=[x]", "dataset.mean=['x'] is not of type list of float"),
    ("train.epochs=", "'train.epochs' has no value"), ("train.epochs=null", "'train.epochs' has no value"),
    ("train.epochs=???", "'train.epochs' has no value"), ("experiment=[", "cannot be read as key=value"),
    ("experiment=${", "cannot be read as key=value"), ("experiment=${nowhere}", "'nowhere' not found"),
])
def test_a_value_of_the_wrong_type_is_refused(word, hint):
    line = refused(word)
    assert line.startswith("command line: ")
    assert hint in line


@pytest.mark.parametrize("dotted", [d for d, item in list_keys().items() if item.type in (int, float)])
def test_every_number_has_bounds_and_what_lies_outside_is_refused(dotted):
    item = list_keys()[dotted]
    low, high, above = (item.metadata[name] for name in ("low", "high", "above"))
    assert (low is None) != (above is None)
    one = 1 if item.type is int else 0.001
    outside = [low - one] if low is not None else [above]
    outside += [] if high is None else [high + one]
    for value in outside:
        assert f"{dotted}={value} is out of range" in refused(f"{dotted}={value}")
    if item.type is float:
        for value in (".nan", ".inf", "-.inf"):
            assert refused(f"{dotted}={value}").startswith(f"{dotted}=")


def test_bounds_are_printed_in_full():
    assert refused("seed=-1").endswith("at least 0, at most 2147483647")


@pytest.mark.parametrize("dotted", [d for d, item in list_keys().items() if item.metadata["choices"]])
def test_every_choice_is_checked_and_the_default_is_one(dotted):
    item = list_keys()[dotted]
    default = get_value(Config(), dotted)
    assert set(default if isinstance(default, list) else [default]) <= set(item.metadata["choices"])
    word = "[sauerkraut]" if isinstance(default, list) else "sauerkraut"
    assert f"{dotted}='sauerkraut' is not one of " in refused(f"{dotted}={word}")


# Files

@pytest.mark.parametrize(("text", "hint"), [
    ("train: {epochs: 2\nfoo", "not valid YAML in line "), ("train:\n\tepochs: 2\n", "not valid YAML in line 2"),
    ("seed: 1\nseed: 2\n", "not valid YAML in line 2: found duplicate key seed"),
    ("seed: 1\n---\nseed: 2\n", "not valid YAML in line 2"),
    ("- 1\n- 2\n", "holds a list or a single value"), ("3\n", "cannot be read: Invalid loaded object type: int"),
    (b"\xff\xfe\x00\x80", "cannot be read: 'utf-8' codec"), ("experiment: ${\n", "cannot be read: "),
    ("? \n: 3\n", "cannot be read: Incompatible key type"), ("train:\n  epochs:\n", "'train.epochs' has no value"),
    ("seed: ???\n", "'seed' has no value"), ("seed: ${train.epochs}\n", "Interpolation key 'train.epochs' not found"),
    ('seed: !!python/object/apply:os.getpid []\n', "not valid YAML in line 1: could not determine a constructor"),
])
def test_a_broken_file_is_told_in_one_line_that_names_it(written, text, hint):
    line = refused(written(text))
    assert "given.yaml: " in line
    assert hint in line


def test_an_empty_file_changes_nothing(written):
    assert parsed(written("")) == Config()


def test_an_unreadable_file_is_told(written, monkeypatch):
    from omegaconf import OmegaConf

    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))
    monkeypatch.setattr(OmegaConf, "load", denied)  # root may read every file
    assert refused(written("seed: 1\n")).endswith("given.yaml: cannot be read: Permission denied")


def test_a_folder_is_no_config_file(tmp_path):
    assert f"config file '{tmp_path}' does not exist" in refused(str(tmp_path))


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
    (["optimizer.name=lion", "optimizer.beta1=0"], "optimizer.beta1=0 is not for optimizer.name=lion"),
    (["hardware.strategy=fsdp", "model.freeze=backbone"], "hardware.strategy=fsdp shares out parameters"),
    (["hardware.precision=fp64", "augment.policy=augmix"], "augment.policy=augmix works on 8-bit images"),
    (["model.gradient_checkpointing=true"],
     "model.gradient_checkpointing=true is not for model.name=resnet18: its BatchNorm"),
    (["model.name=efficientnet_b0", "model.gradient_checkpointing=true"], "model.name=efficientnet_b0: its BatchNorm"),
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
    (["train.monitor=''"], "train.monitor is empty"), (["model.name='timm:'"], "model.name='timm:' is not one of"),
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


# The schema and the repository

def test_keys_that_scripts_rely_on_keep_their_names():
    relied_on = """seed output_dir resume init_from dataset.name dataset.root dataset.val_fraction dataset.limit_train
        dataset.limit_test dataset.on_bad_image model.name optimizer.name optimizer.lr optimizer.weight_decay
        optimizer.momentum schedule.name schedule.warmup_epochs train.epochs train.batch_size train.label_smoothing
        train.grad_clip hardware.accelerator hardware.devices hardware.precision tracking.mode tracking.tensorboard"""
    assert set(relied_on.split()) <= set(list_keys())


def test_every_key_is_read_somewhere():
    trees = [ast.parse(path.read_text()) for folder in ("shared", "lightning_project", "keras_project")
             for path in (REPOSITORY / folder).rglob("*.py")]
    read = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert [dotted for dotted in list_keys() if dotted.rpartition(".")[2] not in read] == []


def test_sections_are_dataclasses_with_defaults():
    assert all(item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING
               for item in list_keys().values())


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
