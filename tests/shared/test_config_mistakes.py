"""Wrong keys, values, options and files of a config, each told in one line."""


from pathlib import Path

import pytest

from shared.config import (
    Config,
    get_value,
    list_keys,
)
from tests.shared.command_lines import parsed, refused

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
    ("train.epochs=true", "train.epochs='true' is not of type int"), ("train.epochs=[1]", "is not of type int"),
    ("optimizer.lr=fast", "optimizer.lr='fast' is not of type float"),
    ("augment.flip=maybe", "augment.flip='maybe' is not of type bool"),
    ("tracking.tags=a", "tracking.tags='a' is not of type list of str"),
    ("tracking.tags=[1,[2]]", "tracking.tags='[1,[2]]' is not of type list of str"),
    ("tracking.tags=[a,{b: 1}]", "is not of type list of str"),
    ("dataset.mean=[x]", "dataset.mean=['x'] is not of type list of float"),
    ("train.epochs=", "'train.epochs' has no value"), ("train.epochs=null", "'train.epochs' has no value"),
    ("train.epochs=???", "'train.epochs' has no value"), ("experiment=???", "'experiment' has no value"),
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
    ("seed: 1\nseed: 2\n", "line 2: duplicate key 'seed', which line 1 has too"),
    ("seed: 1\n---\nseed: 2\n", "not valid YAML in line 2"),
    ("- 1\n- 2\n", "holds a list or a single value"), ("3\n", "holds a list or a single value"),
    (b"\xff\xfe\x00\x80", "cannot be read: 'utf-8' codec"), ("? \n: 3\n", "unknown key ''"),
    ("? [seed]\n: 3\n", "line 1: a list or a section cannot be a key"),
    ("train: &a\n  epochs: *a\n", "cannot be read: too many sections in each other, or one in itself"),
    ("[" * 1500, "cannot be read: too many sections in each other"),
    ("optimizer:\n  name: [sgd]\n", "line 2: optimizer.name=['sgd'] is not of type str"),
    ("tracking:\n  tags: a\n", "line 2: tracking.tags='a' is not of type list of str"),
    ("tracking:\n  tags: [a, {b: c}]\n", "tracking.tags=['a', {}] is not of type list of str"),
    ("train:\n  epochs:\n", "'train.epochs' has no value"),
    ("seed: ???\n", "'seed' has no value"), ("seed: !!int 3\n", "line 1: '!!int' is not known here; leave it out"),
    ("train: !!set {epochs: 3}\n", "line 1: '!!set' is not known here; leave it out"),
    ('seed: !!python/object/apply:os.getpid []\n', "line 1: '!!python/object/apply:os.getpid' is not known here"),
])
def test_a_broken_file_is_told_in_one_line_that_names_it(written, text, hint):
    line = refused(written(text))
    assert "given.yaml: " in line
    assert hint in line


def test_an_empty_file_changes_nothing(written):
    assert parsed(written("")) == Config()


def test_an_unreadable_file_is_told(written, monkeypatch):
    name = written("seed: 1\n")

    def denied(path, **options):
        raise PermissionError(13, "Permission denied", str(path))
    monkeypatch.setattr(Path, "read_text", denied)  # root may read every file
    assert refused(name).endswith("given.yaml: cannot be read: Permission denied")


def test_a_folder_is_no_config_file(tmp_path):
    assert f"config file '{tmp_path}' does not exist" in refused(str(tmp_path))
