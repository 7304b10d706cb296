"""Grad-CAM in each sibling: against finite differences, for models that have no map, and for a run as the gallery asks.

tests/parity/test_weights_travel.py compares the siblings' maps.
"""

from unittest import mock

import numpy as np
import pytest

from shared.errors import UserError
from shared.models import EFFICIENTNETS, MODELS, RESNETS, VITS, ModelEntry
from shared.scores.gallery.answers import read_answers
from shared.scores.gallery.maps import SMALLEST, explain_answers
from tests.shared.run_folders import answer_own_images, make_run
from tests.siblings.test_zoo import CLASSES, start

# A small model of each builder, and the size of images at which its map is taken of the last stage.
SIZES = {"resnet18": 32, "efficientnet_b0": 128, "vit_tiny": 32}
LABELS, STEP = np.arange(CLASSES), 1e-4  # an image of each class


def start_small(sibling, name, size, *words):
    """An untrained small model of `name` with the same weights in both siblings, and images (n, S, S, C) float32."""
    from shared.parity.request import perturb_vectors
    from shared.weights.initial import draw_initial_weights

    options = {"resnet18": ["model.stem=small"], "vit_tiny": ["model.patch_size=8"]}.get(name, [])
    with (mock.patch.dict(RESNETS, {"resnet18": ((1, 1, 1, 1), False)}),
          mock.patch.dict(EFFICIENTNETS, {"efficientnet_b0": (0.25, 0.25)}),
          mock.patch.dict(VITS, {"vit_tiny": (24, 2, 3)})):
        _, models, model = start(sibling, name, *options, *words, size=size)
    models.load_weights(model, perturb_vectors(draw_initial_weights(models.neutral_shapes(model), 0)))
    return model, np.random.default_rng(0).normal(size=(CLASSES, size, size, 3)).astype(np.float32)


def explain_small(sibling, name, size):
    """Its maps in fp32, (CLASSES, h, w)."""
    import importlib

    model, images = start_small(sibling, name, size)
    explain = importlib.import_module(f"{sibling}_project.explain").explain
    return explain(model, MODELS[name], images, LABELS)


def compare_with_differences(sibling, name):
    """Half the difference of a logit when a channel is moved up and down, per pixel and step, and the weights that
    Grad-CAM gives to these channels: (CLASSES, 3) each, in fp64. Then the map, and what these weights make of it."""
    import importlib

    module = importlib.import_module(f"{sibling}_project.explain")
    model, images = start_small(sibling, name, SIZES[name], "hardware.precision=fp64")
    images = images.astype(np.float64)
    maps = module.explain(model, MODELS[name], images, LABELS)
    channels = [0, 5, 11]
    if sibling == "lightning":
        import torch

        x = torch.from_numpy(images).permute(0, 3, 1, 2)
        place = module.find_feature_map(model, MODELS[name], x)
        features, weights = module.weigh_channels(model, place, x, torch.from_numpy(LABELS))
        features = features.permute(0, 2, 3, 1)

        def evaluate(channel, step):
            def nudge(layer, inputs, output):
                moved = output.clone()
                (moved[:, 1:, channel] if moved.ndim == 3 else moved[:, channel]).add_(step)
                return moved
            with torch.no_grad(), model.get_submodule(place).register_forward_hook(nudge):
                return model(x).numpy()
    else:
        place = module.find_feature_map(model, MODELS[name])
        features, weights = module.weigh_channels(model, place, images, LABELS)
        call = place.call

        def evaluate(channel, step):
            def nudge(*inputs, **options):
                moved = call(*inputs, **options).numpy()
                (moved[:, 1:] if moved.ndim == 3 else moved)[..., channel] += step
                return moved
            with mock.patch.object(place, "call", nudge):
                return model(images, training=False).numpy()
    features, weights = np.asarray(features), np.asarray(weights)
    rows, pixels = np.arange(CLASSES), features.shape[1] * features.shape[2]
    found = [(evaluate(channel, STEP) - evaluate(channel, -STEP))[rows, LABELS] / (2 * STEP * pixels)
             for channel in channels]
    whole = np.maximum(np.einsum("nhwc,nc->nhw", features, weights), 0)
    return np.stack(found, axis=1), weights[:, channels], maps, whole


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_weights_are_those_of_finite_differences(sibling, name):
    differences, weights, maps, whole = sibling.call(compare_with_differences, name)
    assert np.abs(weights).min() > 1e-7
    np.testing.assert_allclose(weights, differences, rtol=1e-5)
    assert maps.dtype == np.float32
    assert maps.shape == (CLASSES, SMALLEST, SMALLEST)
    np.testing.assert_allclose(maps, whole, rtol=1e-6)


def save_untrained(sibling, folder):
    """Write the weights of an untrained model for the run in `folder`."""
    import importlib

    from shared.config import load_config
    from shared.data.loading import load_data
    from shared.weights.file import save_weights

    models = importlib.import_module(f"{sibling}_project.models")
    config = load_config(folder / "config.yaml")
    importlib.import_module(f"{sibling}_project.runtime").build_runtime(config)
    data = load_data(config)
    save_weights(folder / "best.safetensors", models.neutral_weights(models.build_model(config, data)), config,
                 data.classes)


def explain_other(sibling, kind):
    """The map's shape for a model that is none of ours, or the line that refuses it."""
    import importlib

    explain = importlib.import_module(f"{sibling}_project.explain").explain
    entry, images = ModelEntry("own", "head", ""), np.ones((1, 16, 16, 3), np.float32)
    if sibling == "lightning":
        from torch import nn

        def conv(channels):
            return nn.Conv2d(channels, 4, 3, padding=1)

        model = nn.Sequential(*{
            "convolutional": [conv(3), nn.ReLU(inplace=True), nn.MaxPool2d(2), conv(4), nn.ReLU(inplace=True),
                              nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES)],
            "dense": [nn.Flatten(), nn.Linear(768, CLASSES)],
            "tokens": [nn.Conv2d(3, 8, 4, 4), nn.Flatten(2), nn.Linear(16, 8), nn.Linear(8, 8), nn.Flatten(),
                       nn.Linear(64, CLASSES)]}[kind])
    else:
        from keras import Model, Sequential, layers

        def conv():
            return layers.Conv2D(4, 3, padding="same")

        parts = [layers.Input((16, 16, 3)), *{
            "convolutional": [conv(), layers.ReLU(), layers.MaxPooling2D(2), conv(), layers.ReLU(),
                              layers.GlobalAveragePooling2D(), layers.Dense(CLASSES)],
            "dense": [layers.Flatten(), layers.Dense(CLASSES)],
            "tokens": [layers.Conv2D(8, 4, 4), layers.Reshape((16, 8)), layers.Dense(8), layers.Dense(8),
                       layers.Flatten(), layers.Dense(CLASSES)]}[kind]]
        functional = Sequential(parts)
        model = Model(functional.inputs, functional.outputs)
    try:
        return explain(model, entry, images, np.zeros(1, np.int64)).shape
    except UserError as error:
        return str(error)


def test_other_models_are_explained_at_their_last_feature_map_or_refused(sibling):
    assert sibling.call(explain_other, "convolutional") == (1, 8, 8)
    assert "Grad-CAM is for models that stay convolutional" in sibling.call(explain_other, "tokens")
    assert "no feature map of it has 4 pixels on a side or more, for images of 16 pixels" \
        in sibling.call(explain_other, "dense")


@pytest.mark.slow
def test_a_run_is_explained_in_a_process_of_its_own(sibling, tmp_path):
    run = make_run(tmp_path, sibling.name, config={"dataset.limit_test": 50, "hardware.threads": 1})
    answer_own_images(run, lambda labels: np.eye(10)[labels])
    sibling.call(save_untrained, run)
    answers = read_answers(run)
    maps = explain_answers(answers, np.array([0, 3, 7]))
    assert maps.dtype == np.float32
    assert maps.shape == (3, SMALLEST, SMALLEST)  # of the second stage, for images of 8 pixels
    assert maps.min() == 0 < maps.max()
