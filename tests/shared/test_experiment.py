"""What both entry points say of a run, and how weights are evaluated."""

import dataclasses
import json

import numpy as np
import pytest

from shared.config import Config
from shared.data.loading import Data, Images
from shared.data.sampling import fingerprint, order_epoch
from shared.errors import UserError
from shared.models import MODELS
from shared.runs.folder import RunFolder
from shared.training.describe import describe_run
from shared.training.evaluation import read_weights_to_evaluate, report_scores
from shared.weights.file import fingerprint_weights, save_weights
from shared.weights.initial import draw_initial_weights
from shared.weights.start import choose_starting_point

SHAPES = {"conv1.weight": (2, 1, 3, 3), "bn1.weight": (2,), "bn1.bias": (2,), "bn1.running_mean": (2,),
          "bn1.running_var": (2,), "fc.weight": (3, 2), "fc.bias": (3,)}
CLASSES = ("a", "b", "c")
RESNET = MODELS["resnet18"]
STATISTICS = {"bn1.running_mean", "bn1.running_var"}
BUILT = draw_initial_weights(SHAPES, 1)  # as a framework might have


@pytest.fixture
def config(tmp_path):
    config = Config(output_dir=str(tmp_path / "runs"), experiment="made", seed=2)
    config.train.batch_size = 4
    return config


def data_of(*counts):
    splits = [Images(np.arange(count) % 3, np.zeros((count, 4, 4, 1), np.uint8), None) for count in counts]
    return Data("made", CLASSES, *splits, 4, 1, (0.5,), (0.5,), skipped=("x.png",),
                remarks=("one thing", "another"))


@pytest.mark.parametrize(("everything", "decayed"), [(False, "24"), (True, "31")])
def test_a_run_is_described(config, capsys, everything, decayed):
    """Of 18 + 4 + 4 + 9 numbers 18 and 6 are matrices' weights, 7 more parameters are not, 4 are statistics."""
    config.optimizer.decay_norm_and_bias = everything
    run, weights = RunFolder.start(config, "keras"), draw_initial_weights(SHAPES, 2)
    describe_run(run, data_of(10, 5, 6), RESNET, weights, STATISTICS, device="a device")
    record = json.loads((run.folder / "run.json").read_text())
    assert {name: record[name] for name in ("parameters", "steps_per_epoch", "sizes", "classes", "skipped_images",
                                            "device")} == {
        "parameters": 31, "steps_per_epoch": 2, "sizes": {"train": 10, "val": 5, "test": 6}, "classes": list(CLASSES),
        "skipped_images": 1, "device": "a device"}
    assert record["fingerprints"].keys() == {"data", "split", "test", "order", "initial_weights"}
    assert record["fingerprints"]["order"] == fingerprint(order_epoch(10, 2, 0))
    assert record["fingerprints"]["initial_weights"] == fingerprint_weights(weights)
    told = capsys.readouterr().err
    assert "10 training, 5 validation and 6 test images of 4x4x1 in 3 classes; 2 steps of 4 in each of" in told
    assert f"31 parameters, {decayed} of them decay" in told
    assert f"run folder: {run.folder}\n" in told
    assert "\none thing\nanother\n" in told
    assert record["remarks"] == ["one thing", "another"]


def test_of_several_processes_one_speaks(config, capsys):
    run = RunFolder.start(config, "keras")
    run.leader = False
    describe_run(run, data_of(10, 5, 6), RESNET, draw_initial_weights(SHAPES, 2), STATISTICS)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("epoch", "words"), [(0, "every epoch"), (3, "the first 3 of 9 epochs"), (9, "every epoch")])
def test_what_is_frozen_is_told(config, capsys, epoch, words):
    config.model.freeze, config.train.unfreeze_epoch, config.train.epochs = "backbone", epoch, 9
    describe_run(RunFolder.start(config, "keras"), data_of(10, 5, 6), RESNET, draw_initial_weights(SHAPES, 2),
                 STATISTICS)
    assert f"\nnothing but fc trains in {words}\n" in capsys.readouterr().err


def test_the_starting_point_is_told(config, capsys, tmp_path):
    choose_starting_point(config, RESNET, BUILT)
    assert capsys.readouterr().err == "starting from initial weights drawn with seed 2\n"
    save_weights(tmp_path / "best.safetensors", draw_initial_weights(SHAPES, 7), config, CLASSES)
    config.init_from = str(tmp_path)
    same = choose_starting_point(config, RESNET, BUILT, data_of(10, 5, 6))
    assert fingerprint_weights(same) == fingerprint_weights(draw_initial_weights(SHAPES, 7))
    assert f"starting from weights from {tmp_path}" in capsys.readouterr().err
    choose_starting_point(config, RESNET, BUILT, dataclasses.replace(data_of(10, 5, 6), classes=("a", "b", "d")))
    assert "fc.weight, fc.bias drawn anew for 3 classes" in capsys.readouterr().err


def test_weights_are_evaluated_on_their_own_classes_only(config, tmp_path):
    path = tmp_path / "best.safetensors"
    save_weights(path, draw_initial_weights(SHAPES, 7), config, CLASSES)
    assert set(read_weights_to_evaluate(str(path), SHAPES, CLASSES)) == set(SHAPES)
    with pytest.raises(UserError, match=r"was trained on the classes a, b, c \.\.\., the data set has a, b, d"):
        read_weights_to_evaluate(str(path), SHAPES, ("a", "b", "d"))
    with pytest.raises(UserError, match="does not fit this model: missing other"):
        read_weights_to_evaluate(str(path), {**SHAPES, "other": (1,)}, CLASSES)


@pytest.fixture
def weights(config, tmp_path):
    save_weights(tmp_path / "best.safetensors", draw_initial_weights(SHAPES, 7), config, CLASSES)
    return tmp_path


def report(folder, scores, framework="keras"):
    test = {"logits": np.eye(3, dtype=np.float32), "index": np.arange(3), "label": np.array([0, 1, 0])}
    return report_scores(framework, str(folder), CLASSES, test, test, scores)


def test_a_report_has_scores_and_leaves_its_files_beside_the_weights(weights, capsys):
    found = report(weights, [{"accuracy": 1.0}, {"accuracy": 2 / 3}])
    assert (found["framework"], found["val/accuracy"]) == ("keras", 1.0)
    assert found["test/accuracy"] == pytest.approx(2 / 3)
    told = capsys.readouterr().out
    assert "test/accuracy 0.6667" in told
    assert "\nworst classes      c (0.00 %), a (66.67 %) by F1\n" in told
    with np.load(weights / "predictions_keras.npz") as kept:
        assert kept["label"].tolist() == kept["val_label"].tolist() == [0, 1, 0]
    names = {"predictions_{}.npz", "scores_{}.json", "per_class_{}.csv", "confusion_{}.png", "reliability_{}.png"}
    assert {path.name for path in weights.iterdir()} == {"best.safetensors", *(name.format("keras") for name in names)}
    report(weights, [{}, {}], "lightning")  # overwrites nothing
    assert len(list(weights.iterdir())) == 1 + 2 * len(names)


@pytest.mark.parametrize("name", ["predictions_keras.npz", "scores_keras.json", "reliability_keras.png"])
def test_scores_are_printed_before_what_cannot_be_written_is_told(weights, capsys, name):
    (weights / name).mkdir()  # a read-only folder does not stop root
    scores = [{"accuracy": 0.5, "loss": 1.25}, {"accuracy": 0.75, "loss": 1.5}]
    with pytest.raises(UserError, match=rf"^the scores above are whole, but .*{name} cannot be written \(Is a .*\); "):
        report(weights, scores)
    told = capsys.readouterr().out
    assert told.startswith(
        "val/accuracy 0.5000  val/loss 1.2500  test/accuracy 0.7500  test/loss 1.5000  (3 test images, by keras)\n"
        "accuracy           66.67 %, 95 % interval ")
    assert "predictions:" not in told
    assert not list(weights.glob("*.unfinished"))
