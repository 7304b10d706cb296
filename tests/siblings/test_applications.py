"""keras.applications in the Keras sibling: its files, its preprocessing, its stochastic depth and BatchNorm."""

import subprocess
import sys
from unittest import mock

import numpy as np
import pytest

from shared.config import parse_config
from shared.machine.files import REPOSITORY
from tests.siblings.test_libraries import CLASSES, SIZE, answer, assert_refused, start

pytestmark = [pytest.mark.timeout(300), pytest.mark.parametrize("sibling", ["keras"], indirect=True)]

def randomise(model):
    draws = np.random.default_rng(2)
    for variable in model.weights:
        if len(variable.shape) == 1:  # biases, scales and statistics, which all start from 0 or 1
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
    published = mock.patch("keras.src.utils.file_utils.get_file", return_value=f"{folder}/published.weights.h5")
    if kind == "true":  # as Keras itself builds it from what it publishes
        with published:
            library = build(include_top=False, weights="imagenet", pooling="avg", input_shape=(SIZE, SIZE, 3))
        path = "true"
    whole = keras.Sequential([library, keras.layers.Dense(CLASSES)])
    if kind == "weights.h5":
        library.save_weights(path)
    elif kind != "true":
        whole.save(path)
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3)).astype(np.float64)
    features = library(module.preprocess_input(pixels.copy()), training=False).numpy()
    with published:
        config, models, ours, said = start(sibling, f"keras:{name}", f"model.pretrained={path}")
    head = {part: models.neutral_weights(ours)[f"predictions.{part}"] for part in ("weight", "bias")}
    shown = (pixels / 255 - config.dataset.mean) / config.dataset.std
    kept = np.array_equal(head["weight"], whole.layers[-1].kernel.numpy().T)
    return features @ head["weight"].T + head["bias"], answer(sibling, ours, shown), said, kept


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [
    ("MobileNet", "weights.h5"), ("MobileNet", "keras"), ("MobileNet", "h5"), ("VGG16", "weights.h5"),
    ("EfficientNetB0", "true"),
])
def test_a_file_of_keras_gives_the_librarys_logits(sibling, tmp_path, name, kind):
    librarys, ours, said, kept = sibling.call(through_a_file_of_keras, name, str(tmp_path), kind)
    assert np.ptp(librarys) > 1e-3
    np.testing.assert_allclose(ours, librarys, rtol=0, atol=2e-5 * np.abs(librarys).max())
    source = f"keras.applications.{name}" if kind == "true" else f"{tmp_path}/model.{kind}"
    assert said.startswith(f"weights from {source}")
    assert kept == (kind in ("keras", "h5"))
    assert ("drawn anew" in said) != kept


def prepared(sibling, name, channels):
    """The same pixels by the library's `preprocess_input`, and by our pipeline and the model's first layer."""
    import tensorflow as tf

    from keras_project.augment import Augmentation
    from keras_project.models.library import Colours, describe_model, find_module, measure_preprocessing
    from shared.config import AugmentConfig
    from shared.data.preprocessing import spread_over_channels
    from shared.weights.pretrained import apply_library_preprocessing

    config = apply_library_preprocessing(parse_config([f"model.name={name}"], "test", ""), describe_model(name))
    mean, std = (spread_over_channels(values, (0,) * channels) for values in (config.dataset.mean, config.dataset.std))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 5, channels)).astype(np.uint8)
    expected = find_module(name).preprocess_input(np.repeat(pixels, 3 // channels, axis=-1).astype(np.float64))
    found = [Colours(measure_preprocessing(name)[2], dtype=dtype)(
        Augmentation(AugmentConfig(crop="none"), mean, std, dtype)({"image": tf.constant(pixels)})).numpy()
             for dtype in (tf.float32, tf.float64)]
    return expected, *found


@pytest.mark.parametrize("name", ["VGG16", "MobileNetV2", "DenseNet121", "EfficientNetV2B0", "ConvNeXtTiny"])
def test_the_pipeline_prepares_pixels_as_the_library_does(sibling, name):
    expected, single, double = sibling.call(prepared, f"keras:{name}", 3)
    np.testing.assert_allclose(double, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(single, expected, rtol=0, atol=1e-6 * max(1, np.abs(expected).max()))
    if name == "MobileNetV2":  # the same for all colours
        np.testing.assert_allclose(sibling.call(prepared, f"keras:{name}", 1)[2].shape, expected.shape)


def branch_rates(sibling):
    """The rates of an EfficientNet's branches with and without `model.stochastic_depth`."""
    from keras_project.models.library import set_stochastic_depth

    config, _, model, _ = start(sibling, "keras:EfficientNetB0", "model.stochastic_depth=0.3")
    branches = [layer for layer in model.layers if getattr(layer, "noise_shape", None)]
    rates = [layer.rate for layer in branches]
    config.model.stochastic_depth = 0.0
    set_stochastic_depth(model, config.model)
    return rates, {layer.rate for layer in branches}


def test_stochastic_depth_of_an_efficientnet_is_that_of_the_config(sibling):
    rates, without = sibling.call(branch_rates)
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(0.3)
    assert without == {0.0}


SYNCHRONISED = """
import keras, numpy as np, tensorflow as tf
from keras_project.runtime import build_runtime
from shared.config import parse_config

for wanted in ("true", "false"):
    runtime = build_runtime(parse_config(["hardware.devices=2", "hardware.threads=1", "hardware.accelerator=cpu",
                                          f"hardware.sync_batchnorm={wanted}"], "test", ""))
    with runtime.strategy.scope():
        layer = keras.layers.BatchNormalization(momentum=0.0)
        inner = keras.Sequential([keras.Input((2,)), layer])
        model = runtime.prepare_model(keras.Sequential([keras.Input((2,)), inner]))
    values = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
    shares = tf.data.Dataset.from_tensors(values).unbatch().batch(8)
    part = next(iter(runtime.strategy.experimental_distribute_dataset(shares)))
    runtime.strategy.run(lambda x: model(x, training=True), (part,))
    print(np.allclose(keras.ops.convert_to_numpy(layer.moving_variance), values.var(axis=0), atol=1e-6))
"""


@pytest.mark.slow
def test_stock_batchnorm_of_keras_is_synchronised_as_asked(sibling):
    done = subprocess.run([sys.executable, "-c", SYNCHRONISED], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "False"], done.stderr[-2000:]


@pytest.mark.parametrize(("words", "says"), [
    ("model.name=keras:MobileNetv2", r"has no keras\.applications\.MobileNetv2; did you mean MobileNetV2 or "),
    ("model.name=keras:Xception", r"does not take images of 32 pixels .*at least 71x71"),
    ("model.name=keras:MobileNet model.stochastic_depth=0.1", "is not for .*keras:MobileNet, which has none"),
    ("model.name=keras:MobileNet model.pretrained=nowhere", r"is not a \.keras, \.h5 or \.safetensors file"),
    ("model.name=keras:MobileNet model.pretrained=true", "cannot be fetched .*URL fetch failure.*; go online"),
])
def test_what_the_library_has_not_is_refused_in_a_line(sibling, tmp_path, words, says):
    assert_refused(sibling, tmp_path, words, says)
