"""Models of timm and of keras.applications by their names: trained, gone on with, and with their library's checkpoints.

Nothing is downloaded: the checkpoints are made here, of the library's own models with random weights, whose logits are
what ours have to give.
"""

import importlib
import json
import sys
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from safetensors.numpy import load_file

from shared.config import parse_config, require_support
from shared.errors import UserError
from shared.weights.file import fingerprint_weights, save_weights
from tests.conftest import train
from tests.trainings import WORDS, assert_close_training, assert_same_training, only_run, run

SMALL = {"lightning": "timm:mobilenetv3_small_050", "keras": "keras:MobileNet"}
# Three steps an epoch, a checkpoint after the second.
TINY = (*WORDS, "dataset.image_size=32", "dataset.limit_train=40", "train.epochs=2", "train.label_smoothing=0",
        "train.monitor=val/accuracy")
FROZEN = ("model.freeze=backbone", "train.unfreeze_epoch=1", "optimizer.backbone_lr_factor=0.5", "model.dropout=0.2",
          "schedule.warmup_epochs=0")
HEADS = {"lightning": "classifier.", "keras": "predictions."}
SIZE, CLASSES = 32, 7  # 7: as many as no data set here has

pytestmark = pytest.mark.timeout(300)


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
    return (started := start(sibling, name, channels=1, classes=10))[1].neutral_weights(started[2])


def stopped_after(sibling, folder, step, *words):
    """A training that is interrupted after a step."""
    from shared.training.recorder import Recorder
    original = Recorder.step_ends

    def step_ends(self, now, *values):
        original(self, now, *values)
        if now == step:
            raise KeyboardInterrupt
    with mock.patch.object(Recorder, "step_ends", step_ends):
        return train(sibling, folder, *words)


def evaluated(sibling, folder):
    config = parse_config([f"{folder}/config.yaml"], "test", "")
    return importlib.import_module(f"{sibling}_project.evaluate").evaluate(config, folder)


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


def test_two_devices_normalise_over_the_whole_batch(sibling, tmp_path):
    words = (*TINY, f"model.name={SMALL[sibling.name]}", "train.epochs=1")
    one = sibling.call(train, str(tmp_path / "one"), *words)
    assert one["error"] is None, one["error"]
    two = run(sibling.name, tmp_path / "two", *words, "hardware.devices=2")
    assert two.code == 0, two.err[-3000:]
    assert_close_training(one["run"], only_run(tmp_path / "two", sibling.name))


def mixed_up(sibling, name, folder):
    """Whether a model's weights, all of them changed, come back from a weight file, and its logits with them."""
    from pathlib import Path

    config, models, model, _ = start(sibling, name)
    draws = np.random.default_rng(0)
    weights = {name: tensor + (draws.random(tensor.shape) if tensor.dtype.kind == "f" else 3).astype(tensor.dtype)
               for name, tensor in models.neutral_weights(model).items()}
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


# timm's checkpoints

TIMM = ("resnet18", "convnext_atto", "efficientnet_b0", "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224",
        "mobilenetv3_small_050")


@pytest.fixture
def lightning(sibling):
    if sibling.name != "lightning" or importlib.util.find_spec("timm") is None:
        pytest.skip("for timm alone")
    return sibling


@pytest.fixture
def keras(sibling):
    if sibling.name != "keras":
        pytest.skip("for Keras alone")
    return sibling


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
def test_a_checkpoint_of_timm_gives_timms_logits(lightning, tmp_path, name):
    found, said, other, config = lightning.call(through_a_checkpoint_of_timm, name, str(tmp_path))
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
    from lightning_project.callbacks import Freeze
    from lightning_project.optim import build_optimizer

    config, _, model, _ = start(sibling, name, "model.freeze=backbone", "optimizer.backbone_lr_factor=0.5")
    Freeze(config).on_train_batch_start(SimpleNamespace(current_epoch=0), SimpleNamespace(model=model.train()), None, 0)
    rates = {group["lr"] for group in build_optimizer(config, model, set()).param_groups if group["params"]}
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad], rates, config.optimizer.lr


def test_both_heads_of_a_distilled_model_train(lightning):
    names, rates, rate = lightning.call(frozen_names, "timm:deit_tiny_distilled_patch16_224")
    assert names == ["head.weight", "head.bias", "head_dist.weight", "head_dist.bias"]
    assert rates == {rate, rate / 2}


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
def test_batchnorm_of_timm_is_synchronised_or_refused(lightning, name, on_gpu, kinds):
    found = lightning.call(synchronised, name, on_gpu)
    assert found == kinds if isinstance(kinds, str) else found and found <= kinds


def without_timm(sibling):
    from lightning_project import models

    with mock.patch.dict(sys.modules, {"timm": None}):
        sys.modules.pop("lightning_project.models.library", None)
        with pytest.raises(UserError) as raised:
            models.find_entry("timm:resnet18")
    return str(raised.value)


def test_where_timm_is_not_installed_a_line_says_what_to_install(lightning):
    assert "install the extra timm" in lightning.call(without_timm)


# keras.applications' checkpoints

def randomise(model):
    draws = np.random.default_rng(2)
    for variable in model.weights:
        if "float" in variable.dtype:
            variable.assign(variable + 0.1 * draws.random(variable.shape))


def through_a_file_of_keras(sibling, name, folder, kind):
    """Logits (2, K) of the library's model on what its `preprocess_input` makes of pixels, and of ours on what our
    pipeline makes of them, after ours started from a file of the library's; what is said; and the head's tensors."""
    import keras

    from keras_project.models.library import find_module

    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(3)
    module, build, path = find_module(f"keras:{name}"), getattr(keras.applications, name), f"{folder}/model.{kind}"
    library = build(include_top=False, weights=None, pooling="avg", input_shape=(SIZE, SIZE, 3))
    randomise(library)
    library.save_weights(f"{folder}/published.weights.h5")
    patches = [mock.patch("keras.src.utils.file_utils.get_file", lambda *_, **__: f"{folder}/published.weights.h5")]
    if kind == "true":  # as Keras itself builds it from what it publishes
        with patches[0]:
            library = build(include_top=False, weights="imagenet", pooling="avg", input_shape=(SIZE, SIZE, 3))
        path = "true"
    whole = keras.Sequential([library, keras.layers.Dense(CLASSES)])
    if kind == "weights.h5":
        library.save_weights(path)
    elif kind != "true":
        whole.save(path)
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3)).astype(np.float64)
    features = library(module.preprocess_input(pixels.copy()), training=False).numpy()
    with patches[0]:
        config, models, ours, said = start(sibling, f"keras:{name}", f"model.pretrained={path}")
    head = {part: models.neutral_weights(ours)[f"predictions.{part}"] for part in ("weight", "bias")}
    shown = (pixels / 255 - config.dataset.mean) / config.dataset.std
    kept = np.array_equal(head["weight"], whole.layers[-1].kernel.numpy().T)
    return features @ head["weight"].T + head["bias"], answer(sibling, ours, shown), said, kept


@pytest.mark.parametrize(("name", "kind"), [
    ("MobileNet", "weights.h5"), ("MobileNetV2", "keras"), ("MobileNet", "h5"), ("VGG16", "weights.h5"),
    ("EfficientNetB0", "true"), ("EfficientNetV2B0", "weights.h5"), ("DenseNet121", "weights.h5"),
])
def test_a_file_of_keras_gives_the_librarys_logits(keras, tmp_path, name, kind):
    librarys, ours, said, kept = keras.call(through_a_file_of_keras, name, str(tmp_path), kind)
    assert np.ptp(librarys) > 1e-3
    np.testing.assert_allclose(ours, librarys, rtol=0, atol=2e-5 * np.abs(librarys).max())
    source = f"keras.applications.{name}" if kind == "true" else f"{tmp_path}/model.{kind}"
    assert said.startswith(f"weights from {source}")
    assert kept == (kind in ("keras", "h5"))
    assert ("drawn anew" in said) != kept


def prepared(sibling, name, channels):
    """The same pixels by the library's `preprocess_input`, and by our pipeline and the model's first layer."""
    import tensorflow as tf

    from keras_project.augment import Augment
    from keras_project.models.library import Colours, describe_model, find_module, measure_preprocessing
    from shared.batches.data import spread_over_channels
    from shared.config import AugmentConfig
    from shared.weights.pretrained import apply_library_preprocessing

    config = apply_library_preprocessing(parse_config([f"model.name={name}"], "test", ""), describe_model(name))
    mean, std = (spread_over_channels(values, (0,) * channels) for values in (config.dataset.mean, config.dataset.std))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 5, channels)).astype(np.uint8)
    expected = find_module(name).preprocess_input(np.repeat(pixels, 3 // channels, axis=-1).astype(np.float64))
    found = [Colours(measure_preprocessing(name)[2], dtype=dtype)(
        Augment(AugmentConfig(crop="none"), mean, std, dtype)({"image": tf.constant(pixels)})).numpy()
             for dtype in (tf.float32, tf.float64)]
    return expected, *found


@pytest.mark.parametrize("name", ["VGG16", "MobileNetV2", "DenseNet121", "EfficientNetV2B0", "ConvNeXtTiny"])
def test_the_pipeline_prepares_pixels_as_the_library_does(keras, name):
    expected, single, double = keras.call(prepared, f"keras:{name}", 3)
    np.testing.assert_allclose(double, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(single, expected, rtol=0, atol=1e-6 * max(1, np.abs(expected).max()))
    if name == "MobileNetV2":  # the same for all colours
        np.testing.assert_allclose(keras.call(prepared, f"keras:{name}", 1)[2].shape, expected.shape)


def branch_rates(sibling, *words):
    _, _, model, _ = start(sibling, "keras:EfficientNetV2B0", *words)
    return [layer.rate for layer in model.layers if getattr(layer, "noise_shape", None)]


def test_stochastic_depth_of_an_efficientnet_is_that_of_the_config(keras):
    assert set(keras.call(branch_rates)) == {0.0}
    rates = keras.call(branch_rates, "model.stochastic_depth=0.3")
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(0.3)


# What is refused

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


@pytest.mark.parametrize(("words", "says"), [
    ("model.name=timm:resnet81", "has no model 'resnet81'; did you mean resnet18 or "),
    ("model.name=timm:resnet18.a", "has no weights 'a' of resnet18; choose one of a1_in1k, "),
    ("model.name=timm:qwen3_vit_88m_enc", "is no classifier; choose another"),
    ("model.name=timm:inception_v3", r"does not take images of 32 pixels with 1 channels .*dataset\.image_size=299"),
    ("model.name=timm:vgg11 model.stochastic_depth=0.1", r"model\.stochastic_depth=0\.1 is not for model\.name=timm:vgg"),
    ("model.name=timm:resnet18 model.pretrained=nowhere", "config.json and model.safetensors as timm saves them"),
    ("model.name=timm:resnet18 model.pretrained=true", "timm/resnet18.a1_in1k cannot be loaded .*; go online"),
    ("model.name=timm:resnet18 model.stem=small", r"model\.stem=small is not for model\.name=timm:resnet18"),
    ("model.name=keras:MobileNetv2", r"has no keras\.applications\.MobileNetv2; did you mean MobileNetV2 or "),
    ("model.name=keras:Xception", r"does not take images of 32 pixels .*at least 71x71"),
    ("model.name=keras:MobileNet model.stochastic_depth=0.1", "is not for model.name=keras:MobileNet, which has none"),
    ("model.name=keras:MobileNet model.pretrained=nowhere", r"is not a \.keras, \.h5 or \.safetensors file"),
    ("model.name=keras:MobileNet model.pretrained=true", "cannot be fetched .*URL fetch failure.*; go online"),
])
def test_what_a_library_has_not_is_refused_in_a_line(sibling, tmp_path, words, says):
    if ("timm" in words) != (sibling.name == "lightning"):
        pytest.skip("for the other sibling")
    try:
        kind, error, folder = sibling.call(refusal, str(tmp_path), *words.split())
    except UserError as raised:  # of the config itself, which needs no framework
        kind, error, folder = "UserError", str(raised), None
    assert (kind, folder) == ("UserError", None), error
    assert "\n" not in error
    with pytest.raises(UserError, match=says):
        raise UserError(error)


def test_the_other_siblings_library_is_refused():
    for name, title, other in (("timm:resnet18", "PyTorch Lightning", "keras"), ("keras:VGG16", "Keras", "lightning")):
        with pytest.raises(UserError, match=f"^model.name={name} is for {title} alone"):
            require_support(parse_config([f"model.name={name}"], "test", ""), other)
