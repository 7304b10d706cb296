"""The first layer of airbench: filters that whiten the training images."""

import dataclasses

import numpy as np
import pytest

from shared.config import Config
from shared.data.loading import Data, Images
from shared.weights.initial import draw_initial_weights
from shared.weights.whitening import compute_whitening

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def made(side=12, images=300, channels=3, image_size=None):
    """Images whose neighbouring pixels are alike."""
    rng = np.random.default_rng(0)
    rough = rng.normal(size=(images, side + 3, side + 3, channels)).cumsum(axis=1)
    pixels = np.clip(128 + 30 * (rough[:, 2:-1, 1:-2] + rough[:, 1:-2, 2:-1]), 0, 255).astype(np.uint8)
    split = Images(np.arange(images) % 3, pixels, None)
    return Data("made", ("a", "b", "c"), split, split.take(slice(0, 9)), split.take(slice(0, 9)), image_size or side,
                channels, MEAN[:channels], STD[:channels])


def answer(filters, data):
    """What the filters give for all patches of 2x2 pixels, by plain loops: (patches, filters)."""
    x = (data.train.pixels / 255 - data.mean) / data.std
    side = x.shape[1] - 1
    found = np.zeros((len(x), side, side, len(filters)))
    for row in range(2):
        for column in range(2):
            found += np.einsum("nhwc,fc->nhwf", x[:, row:row + side, column:column + side], filters[:, :, row, column])
    return found.reshape(-1, len(filters))


@pytest.mark.parametrize("channels", [1, 3])
def test_what_the_filters_give_does_not_correlate(channels):
    data = made(channels=channels)
    filters = compute_whitening(Config(), data)
    half = 4 * channels
    assert filters.shape == (2 * half, channels, 2, 2)
    assert filters.dtype == np.float32
    assert np.array_equal(filters[half:], -filters[:half])
    given = answer(filters[:half].astype(np.float64), data)
    moments = given.T @ given / len(given)
    # Each has its variance v over v + 5e-4, which is below 1 and grows with v.
    variances = np.diag(moments)
    assert np.all((variances > 0) & (variances < 1 + 1e-5))
    assert np.all(np.diff(variances) < 1e-6)
    np.testing.assert_allclose(moments, np.diag(variances), atol=1e-5)


def test_the_filters_do_not_depend_on_the_order_of_images():
    data = made()
    backwards = dataclasses.replace(data, train=data.train.take(slice(None, None, -1)))
    assert np.array_equal(compute_whitening(Config(), data), compute_whitening(Config(), backwards))


def test_the_filters_are_of_the_size_that_the_model_sees():
    small, large = compute_whitening(Config(), made()), compute_whitening(Config(), made(image_size=24))
    # Neighbours are more alike in an enlarged image, so that their difference is blown up more.
    assert np.abs(large).max() > 1.2 * np.abs(small).max()


def test_convolutions_of_airbench_begin_as_the_identity():
    drawn = draw_initial_weights({"groups.0.conv1.weight": (8, 5, 3, 3), "groups.1.conv2.weight": (4, 6, 3, 3)}, 0)
    wide, narrow = drawn["groups.0.conv1.weight"], drawn["groups.1.conv2.weight"]
    for kernel, copied in ((wide, 5), (narrow, 4)):
        expected = np.zeros((copied, *kernel.shape[1:]))
        expected[range(copied), range(copied), 1, 1] = 1
        assert np.array_equal(kernel[:copied], expected)
    assert 0.5 / np.sqrt(45) < np.abs(wide[5:]).max() < 1 / np.sqrt(45)
