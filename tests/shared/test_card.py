"""The model card: what it says, what timm is told, and what is written when something is wrong."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from safetensors.numpy import load_file, save_file

from shared.artifacts.card.command import make_card
from shared.config import Config
from shared.errors import UserError
from shared.weights.file import save_weights
from tests.shared.run_folders import make_run

CLASSES = ("cat", "dog *|* wolf", "42")
HEADS = {"resnet18": "fc", "efficientnet_b0": "classifier", "vit_tiny": "head"}


def write_weights(path: Path, *classes: str, **keys: object) -> Path:
    """A weight file whose only tensors are a head; keys are written with __ for a dot."""
    config = Config()
    for key, value in keys.items():
        section, _, name = key.partition("__")
        setattr(getattr(config, section), name, value)
    head = HEADS.get(config.model.name, "head")
    tensors = {f"{head}.weight": np.ones((len(classes), 7), np.float32),
               f"{head}.bias": np.zeros(len(classes), np.float32)}
    save_weights(path, tensors, config, classes)
    return path


def write_run(folder: Path, finished: bool = True, **keys: object) -> Path:
    run = make_run(folder, wrong=(0, 1, 2), finished=finished)
    write_weights(run / "best.safetensors", *"0123456789", **keys)
    return run


def read_config(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


# What timm is told

def test_a_vit_of_small_patches(tmp_path, capsys):
    weights = write_weights(tmp_path / "a.safetensors", *CLASSES, model__name="vit_tiny", dataset__name="cifar10",
                            dataset__center_crop=0.9, dataset__interpolation="bicubic")
    card = make_card(str(weights))
    assert card == tmp_path / "card"
    assert capsys.readouterr().out == f"{card}: model.safetensors, config.json, README.md\n"
    assert read_config(card) == {
        "architecture": "vit_tiny_patch16_224", "num_classes": 3, "num_features": 7, "label_names": list(CLASSES),
        "model_args": {"img_size": 32, "patch_size": 4},
        "pretrained_cfg": {
            "custom_load": False, "input_size": [3, 32, 32], "interpolation": "bicubic", "crop_pct": 0.9,
            "crop_mode": "center", "mean": [0.4914, 0.4822, 0.4465], "std": [0.247, 0.2435, 0.2616],
            "num_classes": 3, "first_conv": "patch_embed.proj", "classifier": "head", "fixed_input_size": True,
            "pool_size": None}}


@pytest.mark.parametrize(("name", "size", "first", "head"), [
    ("resnet18", 96, "conv1", "fc"), ("efficientnet_b0", 28, "conv_stem", "classifier")])
def test_models_that_take_any_size(tmp_path, name, size, first, head):
    card = make_card(str(write_weights(tmp_path / "a.safetensors", *CLASSES, model__name=name,
                                       dataset__name="fashion_mnist", dataset__image_size=size)))
    content = read_config(card)
    assert "model_args" not in content
    assert content["architecture"] == name
    facts = content["pretrained_cfg"]
    assert (facts["first_conv"], facts["classifier"], facts["input_size"]) == (first, head, [1, size, size])


@pytest.mark.parametrize(("keys", "told"), [
    ({}, "timm cannot build a ResNet with the small stem by itself"),
    ({"model__name": "keras:ResNet50"}, "timm cannot build model.name=keras:ResNet50")])
def test_a_model_that_timm_cannot_build_gets_no_config(tmp_path, capsys, keys, told):
    card = make_card(str(write_weights(tmp_path / "a.safetensors", *CLASSES, **keys)))
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{card}: model.safetensors, README.md"
    assert second.startswith(f"no config.json: {told}")
    assert sorted(path.name for path in card.iterdir()) == ["README.md", "model.safetensors"]
    text = (card / "README.md").read_text()
    assert "local-dir" not in text
    assert "library_name" not in text
    assert ("timm.create_model" in text) == (not keys)
    assert ("timm's transform" in text) == (not keys)
    limits = text.partition("## Limits")[2]
    assert ("timm's `resnet18` has other first layers" in limits) == (not keys)


def test_the_weights_are_whole_and_name_no_folder_of_this_machine(tmp_path):
    weights = write_weights(tmp_path / "a.safetensors", *CLASSES, model__name="vit_tiny", dataset__name="image_folder",
                            dataset__root="/a/secret/place", dataset__image_size=32)
    card = make_card(str(weights))
    for name, tensor in load_file(weights).items():
        np.testing.assert_array_equal(load_file(card / "model.safetensors")[name], tensor)
    for file in card.iterdir():
        assert b"secret" not in file.read_bytes()


# What the card says

def test_the_hub_reads_the_header(tmp_path):
    run = write_run(tmp_path, dataset__name="fashion_mnist", model__name="vit_tiny")
    out = make_card(str(run), tmp_path / "out")
    card = ModelCard.load(out / "README.md")
    data = card.data
    assert (data.library_name, data.license, data.pipeline_tag) == ("timm", "other", "image-classification")
    assert data.datasets == ["zalando-datasets/fashion_mnist"]
    result, = data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.94)
    assert (result.dataset_type, result.dataset_split) == ("zalando-datasets/fashion_mnist", "test")
    assert card.data.model_name == run.name


def test_a_data_set_that_the_hub_has_not(tmp_path):
    out = make_card(str(write_run(tmp_path, dataset__name="digits")), tmp_path / "out")
    data = ModelCard.load(out / "README.md").data
    assert data.datasets is None
    assert [result.dataset_type for result in data.eval_results] == ["digits"]


def test_the_scores_have_their_interval(tmp_path):
    text = (make_card(str(write_run(tmp_path))) / "README.md").read_text()
    # Wilson's interval of 47 right of 50, by its formula: (p + z2/2n +- z sqrt(p(1-p)/n + z2/4n2)) / (1 + z2/n).
    assert "| test | 50 | 94.00 % | 83.78 to 97.94 % | 0.1000 |" in text
    assert "| licence | CC BY 4.0 |" in text
    assert "| images | 1,280 training, 140 validation, 50 test |" in text
    assert "trained with PyTorch Lightning" in text


def test_calibration_is_told_where_it_was_measured(tmp_path):
    run = write_run(tmp_path)
    (run / "scores.json").write_text(json.dumps({
        "calibration_error": 0.0123, "brier": 0.05, "temperature": None, "notes": ["few images"], "images": 50}))
    text = (make_card(str(run)) / "README.md").read_text()
    assert "| calibration error | 1.23 % |\n" in text
    assert "| Brier score, 0 to 2 | 0.0500 |\n" in text
    assert "| temperature" not in text
    assert "the calibration error says how far off they are" in text


def test_weights_without_their_run_have_no_scores(tmp_path):
    text = (make_card(str(write_weights(tmp_path / "a.safetensors", *CLASSES))) / "README.md").read_text()
    assert "Not known: these weights lay alone" in text
    header = yaml.safe_load(text.split("---\n")[1])
    assert "model-index" not in header
    assert "metrics" not in header


def test_the_names_of_classes_are_shown_as_they_are(tmp_path):
    text = (make_card(str(write_weights(tmp_path / "a.safetensors", *CLASSES))) / "README.md").read_text()
    assert "\n1. dog \\*\\|\\* wolf\n" in text


def test_data_of_the_users_own_are_left_to_fill_in(tmp_path):
    weights = write_weights(tmp_path / "a.safetensors", *CLASSES, dataset__name="image_folder")
    text = (make_card(str(weights)) / "README.md").read_text()
    assert "| licence | TO BE FILLED IN |" in text
    assert "datasets" not in yaml.safe_load(text.split("---\n")[1])


# Mistakes

def test_an_unfinished_run(tmp_path):
    with pytest.raises(UserError, match="is unfinished, it has no result"):
        make_card(str(write_run(tmp_path, finished=False)))


def test_weights_of_another_program(tmp_path):
    save_file({"fc.weight": np.ones((2, 2), np.float32)}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="was not written by this repository"):
        make_card(str(tmp_path / "a.safetensors"))


def test_a_folder_that_is_in_use_is_left_alone(tmp_path):
    weights = write_weights(tmp_path / "a.safetensors", *CLASSES)
    (tmp_path / "card").mkdir()
    (tmp_path / "card" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is there already; delete it, or name a new folder with --out"):
        make_card(str(weights))
    assert [path.name for path in (tmp_path / "card").iterdir()] == ["thesis.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "card"]


@pytest.mark.parametrize("out", ["../new", "."])
def test_an_empty_folder_is_filled(tmp_path, monkeypatch, out):
    (tmp_path / "new").mkdir()
    monkeypatch.chdir(tmp_path / "new")
    make_card(str(write_weights(tmp_path / "a.safetensors", *CLASSES)), Path(out))
    assert (tmp_path / "new" / "README.md").exists()


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    weights = write_weights(tmp_path / "a.safetensors", *CLASSES)

    def fail(path, *arguments, **options):
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\); make room"):
        make_card(str(weights), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_weight_file_that_is_cut_short(tmp_path):
    weights = write_weights(tmp_path / "a.safetensors", *CLASSES)
    content = weights.read_bytes()
    weights.write_bytes(content[:-20])
    with pytest.raises(UserError, match="is not a readable safetensors file"):
        make_card(str(weights))
    assert not (tmp_path / "card").exists()
