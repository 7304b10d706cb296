"""A SavedModel decodes image files in its own graph, as Pillow does here."""

import numpy as np
import pytest

pytestmark = pytest.mark.parametrize("sibling", ["keras"], indirect=True)  # SavedModel is Keras' format


def decode_as_served(sibling, folder):
    """For each preprocessing: the largest difference of pixels, in grey levels, between Pillow's route and the
    SavedModel's, over PNG and JPEG files of several sizes."""
    from PIL import Image

    from keras_project.artifact import decode
    from shared.data.decode import open_rgb
    from shared.data.preprocessing import Preprocessing

    draws = np.random.default_rng(0)
    for height, width in ((32, 32), (75, 50), (31, 100), (20, 20)):
        noise = Image.fromarray(draws.integers(0, 256, (6, 6, 3), np.uint8)).resize((width, height), 3)
        for ending in ("png", "jpg"):
            noise.save(folder / f"{height}x{width}.{ending}")
        noise.convert("L").save(folder / f"{height}x{width}-grey.png")
    found = []
    for channels, crop, interpolation, rounded in ((3, 1.0, "bilinear", True), (3, 0.875, "bicubic", True),
                                                   (1, 1.0, "bilinear", False)):
        seen = Preprocessing(32, channels, crop, interpolation, rounded, (0.5,) * channels, (0.5,) * channels)
        apart = [np.abs(decode(file.read_bytes(), seen).numpy() - seen.scale(open_rgb(file))).max()
                 for file in sorted(folder.iterdir())]
        found.append(max(apart))
    return found


def test_a_savedmodel_decodes_as_pillow_does(sibling, tmp_path):
    bilinear, bicubic, matrices = sibling.call(decode_as_served, tmp_path)
    # Pillow computes in whole numbers, so that a value at a half may be rounded to the other side, twice.
    assert bilinear <= 1
    assert bicubic <= 2
    assert matrices < 0.01
