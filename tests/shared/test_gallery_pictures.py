"""How the gallery draws images, maps and what stands below them."""

import base64
import io

import numpy as np
from PIL import Image

from shared.scores.gallery.cards import Answer, Card
from shared.scores.gallery.pictures import draw_image, draw_map, encode_image
from shared.scores.gallery.sheet import LONGEST, list_lines


def test_small_images_keep_their_pixels_and_large_ones_are_scaled_down():
    pixels = np.arange(3 * 64, dtype=np.uint8).reshape(8, 8, 3)
    shown = np.asarray(draw_image(pixels))
    np.testing.assert_array_equal(shown, pixels.repeat(16, axis=0).repeat(16, axis=1))
    assert draw_image(np.zeros((28, 28, 1), np.float32)).size == (112, 112)
    assert draw_image(np.zeros((150, 150, 3), np.uint8)).size == (150, 150)
    assert draw_image(np.zeros((224, 224, 3), np.uint8)).size == (192, 192)


def test_a_map_lies_where_it_is_high():
    image = draw_image(np.full((32, 32, 3), (200, 0, 0), np.uint8))
    values = np.zeros((4, 4), np.float32)
    values[0, 3] = 5
    shown = np.asarray(draw_map(image, values)).astype(int)
    grey = np.asarray(image.convert("L"))[0, 0]
    colourful = shown.max(axis=2) - shown.min(axis=2) > 30
    assert colourful[:32, 96:].any()  # the upper right quarter of quarters
    assert not colourful[64:].any()
    assert not colourful[:, :64].any()
    np.testing.assert_array_equal(shown[127, 0], [grey] * 3)
    np.testing.assert_array_equal(draw_map(image, np.zeros((4, 4), np.float32)), np.full((128, 128, 3), grey))


def test_a_long_name_is_cut_and_its_probability_stays():
    truth, said = list_lines(Card("", "cat", [Answer("keras", "x" * 60, 0.97, False, 0.01)], []))
    assert truth == "true: cat"
    assert said.startswith("keras: xxx")
    assert said.endswith("x… (97 %)")
    assert len(said) == LONGEST


def test_the_smaller_of_two_formats_is_taken():
    flat = draw_image(np.zeros((8, 8, 3), np.uint8))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (192, 192, 3), np.uint8))
    for image, kind in ((flat, "png"), (noise, "jpeg")):
        head, content = encode_image(image).split(",")
        assert head == f"data:image/{kind};base64"
        with Image.open(io.BytesIO(base64.b64decode(content))) as read:
            assert (read.format.lower(), read.size) == (kind, image.size)
