"""Models of timm and of keras.applications by their names: trained, gone on with, and with their library's checkpoints.

Nothing is downloaded: the checkpoints are made here, of the library's own models with random weights, whose logits are
what ours have to give.
"""

import importlib.util
import json
import re
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from safetensors.numpy import load_file

from shared.config import parse_config, require_support
from shared.errors import UserError
from shared.weights.file import fingerprint_weights, save_weights
from tests.conftest import train
from tests.trainings import WORDS, assert_same_training

SMALL = {"lightning": "timm:mobilenetv3_small_050", "keras": "keras:MobileNet"}
# Three steps an epoch, a checkpoint after the second; by sgd without averages, which TensorFlow compiles soonest.
TINY = (*WORDS, "dataset.image_size=32", "dataset.limit_train=40", "train.epochs=2", "train.label_smoothing=0",
        "train.monitor=val/accuracy", "train.ema_decay=0", "optimizer.name=sgd")
FROZEN = ("model.freeze=backbone", "train.unfreeze_epoch=1", "optimizer.backbone_lr_factor=0.5", "model.dropout=0.2",
          "schedule.warmup_epochs=0")
HEADS = {"lightning": "classifier.", "keras": "predictions."}
SIZE, CLASSES = 32, 7  # 7: as many as no data set here has

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def timm_is_there(request):
    if "sibling" in request.fixturenames and request.getfixturevalue("sibling").name == "lightning" \
            and importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")


def start(sibling, name, *words, channels=3, size=SIZE, classes=CLASSES):
    """(config, the sibling's `models` module, the model with its starting weights, what is said of them), in fp64."""
    from shared.weights.pretrained import apply_library_preprocessing
    from shared.weights.start import choose_starting_weights

    config = parse_config([f"model.name={name}", f"dataset.name={'digits' if channels == 1 else 'cifar10'}",
                           f"dataset.image_size={size}", "hardware.threads=1", "hardware.precision=fp64", *words],
                          "test", "")
    models = importlib.import_module(f"{sibling}_project.models")
    entry = models.find_entry(name)
    config = apply_library_preprocessing(config, entry)
    importlib.import_module(f"{sibling}_project.runtime").build_runtime(config)
    data = SimpleNamespace(channels=channels, classes=tuple(map(str, range(classes))), image_size=size)
    model = models.build_model(config, data)
    weights, said = choose_starting_weights(config, entry, models.neutral_weights(model))
    models.load_weights(model, weights)
    return config, models, model, said


def answer(sibling, model, images):
    """Logits (n, K) of normalised images (n, H, W, C) float64, in evaluation."""
    if sibling == "keras":
        return model(images, training=False).numpy()
    import torch

    with torch.no_grad():
        return model.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()


def initial_weights(sibling, name):
    _, models, model, _ = start(sibling, name, "model.dropout=0.2", channels=1, classes=10)
    return models.neutral_weights(model)


def stopped_after(sibling, folder, step, *words):
    """A training that is interrupted after a step."""
    from shared.training.recorder import Recorder
    original = Recorder.end_step

    def end_step(self, now, *values):
        original(self, now, *values)
        if now == step:
            raise KeyboardInterrupt
    with mock.patch.object(Recorder, "end_step", end_step):
        return train(sibling, folder, *words)


def evaluated(sibling, folder):
    config = parse_config([f"{folder}/config.yaml"], "test", "")
    return importlib.import_module(f"{sibling}_project.evaluate").evaluate(config, folder)


@pytest.mark.slow
def test_a_run_is_frozen_stopped_resumed_and_evaluated(sibling, tmp_path):
    words = (*TINY, *FROZEN, f"model.name={SMALL[sibling.name]}")
    stopped = sibling.call(stopped_after, str(tmp_path / "stopped"), 5, *words)
    assert stopped["kind"] in ("KeyboardInterrupt", "SystemExit"), stopped["error"]
    first, begun = sibling.call(initial_weights, SMALL[sibling.name]), load_file(stopped["run"] / "best.safetensors")
    record = json.loads((stopped["run"] / "run.json").read_text())
    assert record["fingerprints"]["initial_weights"] == fingerprint_weights(first)
    moved = {name for name in begun if begun[name].tobytes() != first[name].tobytes()}
    assert moved == {f"{HEADS[sibling.name]}{name}" for name in ("weight", "bias")}
    assert any(name.endswith("running_var") for name in begun)

    resumed = sibling.call(train, str(tmp_path / "stopped"), *words)
    assert resumed["error"] is None, resumed["error"]
    assert resumed["run"] == stopped["run"]
    whole = sibling.call(train, str(tmp_path / "whole"), *words)
    assert_same_training(whole["run"], resumed["run"])
    scores = sibling.call(evaluated, str(whole["run"]))
    assert {name: scores[name] for name in ("test/accuracy", "test/loss")} == \
        {name: whole["result"][name] for name in ("test/accuracy", "test/loss")}
    *_, said = sibling.call(starting_point_of, SMALL[sibling.name], str(whole["run"]))
    assert said == f"weights from {whole['run'] / 'best.safetensors'}"


def starting_point_of(sibling, name, run_folder):
    _, models, model, said = start(sibling, name, f"init_from={run_folder}", channels=1, classes=10)
    best, found = load_file(f"{run_folder}/best.safetensors"), models.neutral_weights(model)
    assert all(np.array_equal(found[name], tensor) for name, tensor in best.items())
    return found.keys() == best.keys(), said


def mixed_up(sibling, name, folder):
    """Whether a model's weights, all of them changed, come back from a weight file, and its logits with them."""
    from pathlib import Path

    config, models, model, _ = start(sibling, name)
    draws = np.random.default_rng(0)
    weights = {name: tensor + (draws.random(tensor.shape) if tensor.dtype.kind == "f" else np.array(3))
               .astype(tensor.dtype) for name, tensor in models.neutral_weights(model).items()}
    images = draws.normal(size=(2, SIZE, SIZE, 3))
    before = answer(sibling, model, images)
    models.load_weights(model, weights)
    save_weights(Path(folder) / "best.safetensors", models.neutral_weights(model), config, ())
    _, models, again, _ = start(sibling, name, f"init_from={folder}")
    back, logits = models.neutral_weights(again), answer(sibling, model, images)
    return ({name for name, tensor in weights.items() if not np.array_equal(back.pop(name), tensor)} | back.keys(),
            np.array_equal(answer(sibling, again, images), logits), np.array_equal(before, logits))


@pytest.mark.parametrize("names", [{"lightning": "timm:efficientnet_b0", "keras": "keras:EfficientNetB0"}])
def test_every_tensor_comes_back_from_a_weight_file(sibling, names, tmp_path):
    # Keras' EfficientNetB0 has an integer, and a mean and variance that no gradient reaches.
    assert sibling.call(mixed_up, names[sibling.name], str(tmp_path)) == (set(), True, False)


def refusal(sibling, folder, *words):
    """What a training says that cannot begin, without a network."""
    from contextlib import ExitStack

    def fail(*_, **__):
        raise Exception("URL fetch failure")
    with ExitStack() as offline:
        if sibling == "keras":
            offline.enter_context(mock.patch("keras.src.utils.file_utils.get_file", fail))
        else:
            offline.enter_context(mock.patch("huggingface_hub.constants.HF_HUB_OFFLINE", True))
            offline.enter_context(mock.patch("huggingface_hub.constants.HF_HUB_CACHE", folder))
        done = train(sibling, folder, "dataset.image_size=32", *words)
    return done["kind"], done["error"], done["run"]


def assert_refused(sibling, folder, words, says):
    try:
        kind, error, run_folder = sibling.call(refusal, str(folder), *words.split())
    except UserError as raised:  # of the config itself, which needs no framework
        kind, error, run_folder = "UserError", str(raised), None
    assert (kind, run_folder) == ("UserError", None), error
    assert "\n" not in error
    assert re.search(says, error), error


def test_the_other_siblings_library_is_refused():
    for name, title, other in (("timm:resnet18", "PyTorch Lightning", "keras"), ("keras:VGG16", "Keras", "lightning")):
        with pytest.raises(UserError, match=f"^model.name={name} is for {title} alone"):
            require_support(parse_config([f"model.name={name}"], "test", ""), other)
