"""What happens to an image before a model sees it is, as written down, what evaluation does."""

import json

import numpy as np
import pytest
from PIL import Image

from shared.config import Config
from shared.data import augment
from shared.data.batches import EvalBatches
from shared.data.loading import load_data
from shared.data.preprocessing import Preprocessing, spread_over_channels


def make_folder(root, size=(9, 7)):
    """Two classes of eight images in random colours, of `size` (height, width)."""
    draws = np.random.default_rng(0)
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for number in range(8):
            Image.fromarray(draws.integers(0, 256, (*size, 3), np.uint8)).save(root / name / f"{number}.png")
    return root


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("center_crop", [1.0, 0.875])
def test_files_are_scaled_as_evaluation_scales_them(tmp_path, interpolation, center_crop):
    config = Config()
    config.dataset.name, config.dataset.root = "image_folder", str(make_folder(tmp_path / "images"))
    config.dataset.image_size, config.dataset.interpolation = 6, interpolation
    config.dataset.center_crop, config.dataset.val_fraction, config.dataset.test_fraction = center_crop, 0.2, 0.4
    config.train.batch_size = 2
    data, steps = load_data(config), Preprocessing.of_config(config)
    batch = EvalBatches(config, data, data.test)[0]
    found = np.stack([steps.scale(Image.open(file)) for file in data.test.files])
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, batch["image"])


@pytest.mark.parametrize("image_size", [8, 12, 5])
@pytest.mark.parametrize("center_crop", [1.0, 0.75])
def test_images_in_memory_are_scaled_as_evaluation_scales_them(image_size, center_crop):
    """Square ones of the stored size, which is all that such a data set has."""
    config = Config()
    config.dataset.name, config.dataset.image_size, config.dataset.center_crop = "digits", image_size, center_crop
    steps = Preprocessing.of_config(config)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    found = np.stack([steps.scale(Image.fromarray(image[:, :, 0])) for image in pixels])
    matrices = augment.build_geometry(config.augment, None, 8, 8, image_size, "bilinear", center_crop)
    expected = pixels if matrices is None else np.einsum("sh,tw,nhwc->nstc", matrices[0][0], matrices[1][0], pixels)
    assert found.shape == (3, image_size, image_size, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_a_colour_photograph_of_any_shape_becomes_a_grey_square():
    """The central square of 4 x 8 pixels that are red but for a column at each side, which is too far away to be
    blended in; red has the luma 0.299 x 255 = 76."""
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, 1:7] = 255, 0, 0
    config = Config()
    config.dataset.name = "digits"
    found = Preprocessing.of_config(config).scale(Image.fromarray(pixels))
    assert found.shape == (8, 8, 1)
    np.testing.assert_allclose(found, 76, atol=1e-4)


def test_normalising_by_hand():
    steps = Preprocessing(1, 3, 1.0, "bilinear", True, (0.5, 0.4, 0.0), (0.5, 0.2, 1.0))
    found = steps.normalise(np.array([[255, 0, 51]], np.uint8))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[1, -2, 0.2]], rtol=1e-6)


def test_it_can_be_written_down():
    config = Config()
    config.dataset.name = "cifar10"
    steps = Preprocessing.of_config(config)
    assert Preprocessing.from_dict(json.loads(json.dumps(steps.to_dict()))) == steps
    assert steps.to_dict() == {"image_size": 32, "channels": 3, "center_crop": 1.0, "interpolation": "bilinear",
                               "rounded": False, "mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)}


def test_a_value_for_each_channel():
    assert spread_over_channels([], (0.5,)) == (0.5,)
    assert spread_over_channels([0.2], (0.5,)) == (0.2,)
    assert spread_over_channels([0.1, 0.2, 0.6], (0.5,)) == (pytest.approx(0.3),)
