"""The schema, how files and command line fill it, and how it is printed."""

import ast
import dataclasses

import pytest

from shared.config import (
    Config,
    flatten,
    list_keys,
    load_config,
    to_dict,
    to_yaml,
    validate_config,
)
from shared.machine.files import REPOSITORY
from tests.shared.command_lines import parsed

QUICKSTART = ["configs/quickstart.yaml"]


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
