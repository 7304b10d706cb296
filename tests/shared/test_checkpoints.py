"""A published checkpoint of few tensors and the shapes of a model: what is taken of it, and what is refused."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from shared.config import Config, ModelConfig
from shared.data.imagenet import read_synsets
from shared.errors import UserError
from shared.models import MODELS
from shared.weights.pretrained import apply_checkpoint_preprocessing, find_checkpoint
from shared.weights.start import choose_starting_point, choose_starting_weights


def start_from(folder, classes=1000, channels=3, folders=()):
    built = {"conv1.weight": np.zeros((64, channels, 7, 7)), "fc.weight": np.eye(classes, 512),
             "fc.bias": np.zeros(classes)}
    config = Config(model=ModelConfig(pretrained=str(folder)))
    return choose_starting_weights(config, MODELS["resnet18"], built, SimpleNamespace(folders=folders, classes=()))


def test_head_stays_for_as_many_classes_and_is_drawn_anew_for_others(checkpoint):
    given = load_file(checkpoint / "model.safetensors")
    whole, words = start_from(checkpoint)
    assert words == f"weights from {checkpoint}"
    assert all(np.array_equal(whole[name], given[name]) for name in whole)
    own, words = start_from(checkpoint, folders=tuple(f"class{i}" for i in range(1000)))  # as many, but not ImageNet's
    assert not own["fc.bias"].any()
    assert words.endswith("; fc.weight, fc.bias drawn anew for 1000 classes")
    other, words = start_from(checkpoint / "model.safetensors", classes=12)
    assert np.array_equal(other["conv1.weight"], given["conv1.weight"])
    assert other["fc.weight"].shape == (12, 512)
    assert not other["fc.bias"].any()
    assert words.endswith("; fc.weight, fc.bias drawn anew for 12 classes")


def test_head_of_imagenet_is_taken_by_name(checkpoint):
    given = load_file(checkpoint / "model.safetensors")
    # tench, English springer and parachute are classes 0, 217 and 701.
    weights, words = start_from(checkpoint, classes=3, folders=("n01440764", "n02102040", "n03888257"))
    assert np.array_equal(weights["fc.weight"], given["fc.weight"][[0, 217, 701]])
    assert np.array_equal(weights["fc.bias"], given["fc.bias"][[0, 217, 701]])
    assert words.endswith("; head of ImageNet's 3 classes by name")
    assert list(read_synsets()).index("n02102040") == 217
    assert list(read_synsets().values())[701] == "parachute"
    assert len(set(read_synsets().values())) == 1000


def test_grey_images_see_the_sum_of_the_first_kernels_colours(checkpoint):
    given = load_file(checkpoint / "model.safetensors")
    weights, words = start_from(checkpoint, channels=1)
    assert "first kernel summed over colours" in words
    np.testing.assert_allclose(weights["conv1.weight"][:, 0], given["conv1.weight"].sum(axis=1), rtol=1e-6)


def test_the_checkpoints_preprocessing_is_applied_and_kept_in_the_config(checkpoint):
    config = apply_checkpoint_preprocessing(Config(model=ModelConfig(pretrained=str(checkpoint))))
    assert config.dataset.mean == [0.1, 0.2, 0.3]
    assert config.dataset.std == [0.4, 0.5, 0.6]
    assert (config.dataset.interpolation, config.dataset.center_crop) == ("bicubic", 0.9)
    assert config.model.stem == "large"
    assert apply_checkpoint_preprocessing(Config()) == Config()
    from shared.data.loading import load_data
    grey = load_data(config)  # the digits
    assert grey.mean == pytest.approx((0.2,))
    assert grey.std == pytest.approx((0.5,))


@pytest.mark.parametrize(("change", "says"), [
    ({"architecture": "resnet50"}, "holds a resnet50, and model.name=resnet18 is timm's resnet18"),
    ({"pretrained_cfg": {}}, r"config.json is not a checkpoint's config of timm's \(KeyError: 'mean'\)"),
    ({"pretrained_cfg": {"mean": [0, 0, 0], "std": [0, 0, 0], "interpolation": "bicubic", "crop_pct": 1}},
     "checkpoint: dataset.mean=.* and std above 0"),
])
def test_a_checkpoint_of_something_else_is_refused(checkpoint, change, says):
    facts = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(facts | change))
    with pytest.raises(UserError, match=says):
        apply_checkpoint_preprocessing(Config(model=ModelConfig(pretrained=str(checkpoint))))


def test_odd_tensors_are_told_in_a_line(checkpoint):
    save_file({"conv1.weight": np.zeros(3, np.float32)}, checkpoint / "model.safetensors")
    with pytest.raises(UserError, match=r"safetensors does not fit model\.name=resnet18 \(IndexError: .*use the"):
        start_from(checkpoint, channels=1)


def test_a_run_goes_on_though_the_checkpoint_it_began_with_is_gone(checkpoint, tmp_path):
    kept = apply_checkpoint_preprocessing(Config(model=ModelConfig(pretrained=str(checkpoint))))
    shutil.rmtree(checkpoint)
    kept.resume = str(tmp_path)
    assert apply_checkpoint_preprocessing(kept) == kept
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    built = {"conv1.weight": np.zeros((64, 3, 7, 7))}
    assert choose_starting_point(kept, MODELS["resnet18"], built).keys() == {"conv1.weight"}


def test_what_contradicts_a_checkpoint_is_refused(checkpoint, tmp_path):
    with pytest.raises(UserError, match="have the large stem"):
        apply_checkpoint_preprocessing(Config(model=ModelConfig(pretrained=str(checkpoint), stem="small")))
    with pytest.raises(UserError, match=r"model.safetensors does not exist; name a folder"):
        find_checkpoint(Config(model=ModelConfig(pretrained=str(tmp_path))))
