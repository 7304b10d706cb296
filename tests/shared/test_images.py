"""Each kind of image file against pixel values worked out by hand."""

import pickle
import struct

import numpy as np
import pytest
from PIL import Image

from shared.data.decode import decode_image, make_central_box, read_image, scale_image
from shared.errors import UserError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


@pytest.fixture
def saved(tmp_path):
    """Saves an image, losslessly unless told otherwise, and returns its path."""
    def save(image, name="image.png", **options):
        image.save(tmp_path / name, **options)
        return tmp_path / name
    return save


def row(mode, *values):
    """An image one pixel high."""
    image = Image.new(mode, (len(values), 1))
    image.putdata(values)
    return image


def pixels(path):
    decoded = decode_image(path)
    assert decoded.dtype == np.uint8
    assert decoded.ndim == 3
    assert decoded.flags.writeable
    return decoded.tolist()


def test_rgb(saved):
    assert pixels(saved(row("RGB", RED, (1, 2, 3)))) == [[[255, 0, 0], [1, 2, 3]]]


def test_grey_becomes_three_equal_channels(saved):
    assert pixels(saved(row("L", 0, 7, 255))) == [[[0, 0, 0], [7, 7, 7], [255, 255, 255]]]


def test_one_bit_is_black_and_white(saved):
    assert pixels(saved(row("1", 0, 1))) == [[[0, 0, 0], [255, 255, 255]]]


def test_palette(saved):
    image = row("P", 0, 1)
    image.putpalette([*RED, *BLUE])
    assert pixels(saved(image)) == [[[*RED], [*BLUE]]]


@pytest.mark.parametrize("transparency", [1, bytes([255, 0])])  # one colour, and an alpha for each
def test_palette_with_transparency_shows_white(saved, transparency):
    image = row("P", 0, 1)
    image.putpalette([*RED, *BLUE])
    assert pixels(saved(image, transparency=transparency)) == [[[*RED], [*WHITE]]]


def test_rgba_is_laid_over_white(saved):
    # alpha 51 is one fifth: 255 * 4/5 + 0 * 1/5 = 204
    path = saved(row("RGBA", (*RED, 255), (*RED, 0), (0, 0, 0, 51)))
    assert pixels(path) == [[[*RED], [*WHITE], [204, 204, 204]]]


def test_grey_with_alpha_is_laid_over_white(saved):
    assert pixels(saved(row("LA", (10, 255), (10, 0)))) == [[[10, 10, 10], [*WHITE]]]


def test_rgb_with_a_transparent_colour_shows_white(saved):
    assert pixels(saved(row("RGB", RED, BLUE), transparency=BLUE)) == [[[*RED], [*WHITE]]]


def test_cmyk(saved):
    # no ink is white; full cyan takes red away; full black takes everything
    path = saved(row("CMYK", (0, 0, 0, 0), (255, 0, 0, 0), (0, 0, 0, 255)), "image.tif")
    assert pixels(path) == [[[255, 255, 255], [0, 255, 255], [0, 0, 0]]]


def test_cmyk_jpeg(saved):
    decoded = decode_image(saved(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "image.jpg", quality=95))
    assert np.abs(decoded.astype(int) - (0, 255, 255)).max() <= 2  # JPEG is lossy


@pytest.mark.parametrize("name", ["image.png", "image.tif"])
def test_sixteen_bits_keep_their_upper_eight(saved, name):
    image = Image.fromarray(np.array([[0, 255, 256, 0x1234, 65535]], np.uint16))
    assert image.mode == "I;16"
    assert [value for value, _, _ in pixels(saved(image, name))[0]] == [0, 0, 1, 0x12, 255]


def test_sixteen_bit_pgm(tmp_path):
    (tmp_path / "image.pgm").write_bytes(b"P5 3 1 65535\n" + struct.pack(">3H", 255, 0x8001, 65535))
    assert [value for value, _, _ in pixels(tmp_path / "image.pgm")[0]] == [0, 0x80, 255]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_thirty_two_bits_have_no_known_range(saved, dtype):
    path = saved(Image.fromarray(np.array([[0, 70000]], dtype)), "image.tif")
    with pytest.raises(UserError, match="32-bit"):
        decode_image(path)


# EXIF 2.32, tag 0x0112: 1 as stored, 3 upside down, 6 needs a quarter turn clockwise, 8 counter-clockwise.
@pytest.mark.parametrize(("orientation", "upright"), [
    (1, [[1, 2, 3], [4, 5, 6]]),
    (2, [[3, 2, 1], [6, 5, 4]]),
    (3, [[6, 5, 4], [3, 2, 1]]),
    (6, [[4, 1], [5, 2], [6, 3]]),
    (8, [[3, 6], [2, 5], [1, 4]]),
])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_exif_orientation_is_applied(saved, orientation, upright, dtype):
    stored = np.array([[1, 2, 3], [4, 5, 6]], dtype) * (256 if dtype is np.uint16 else 1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert decode_image(saved(Image.fromarray(stored), exif=exif))[:, :, 0].tolist() == upright


def test_first_frame_of_an_animation(saved):
    path = saved(row("RGB", RED, GREEN), "image.gif", save_all=True, append_images=[row("RGB", BLUE, BLUE)])
    assert pixels(path) == [[[*RED], [*GREEN]]]


def test_read_takes_the_box_and_scales_it(saved):
    image = np.zeros((4, 6, 3), np.uint8)
    image[1:3, 2:4] = 200
    path = saved(Image.fromarray(image))
    told = []
    result = read_image(path, 2, lambda height, width: told.append((height, width)) or (1.0, 2.0, 2.0, 2.0))
    assert told == [(4, 6)]
    assert result.tolist() == [[[200] * 3] * 2] * 2


def test_read_is_antialiased(saved):
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))  # the finest stripes: scaled down they are even grey
    result = read_image(saved(Image.fromarray(stripes)), 8, lambda height, width: (0, 0, height, width))
    assert np.abs(result.astype(int) - 127.5).max() < 8


def test_read_forgives_a_rounding_error_at_the_edge(saved):
    path = saved(Image.new("RGB", (3, 3), RED))
    assert read_image(path, 2, lambda height, width: (-1e-5, 2.00001, 3, 1)).tolist() == [[[*RED]] * 2] * 2


def draw_scene(height, width):
    """Waves of several lengths down to three pixels, as a photograph has."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 40 + y / 70), np.sin((x - 2 * y) / 15), np.sin(x * 2 * np.pi / 3) * np.sin(y / 5)]
    return np.uint8(127.5 + 40 * np.stack([waves[0] + waves[1], waves[0] + waves[2], sum(waves)], axis=-1))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [99, 40, 24])  # of 403 pixels; at 1/2, 1/4 and 1/8 of their size
def test_a_fast_reading_is_close_to_the_exact_one(saved, orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(Image.fromarray(draw_scene(403, 517)), "image.jpg", quality=90, exif=exif)
    told = []

    def box(height, width):
        told.append((height, width))
        return 1.5, 2.25, height - 3, width - 3.5
    exact, fast, coarse = (read_image(path, size, box, decode=decode).astype(int)
                           for decode in ("exact", "fast", "coarse"))
    assert set(told) == {(403, 517) if orientation < 5 else (517, 403)}
    assert 0 < np.abs(fast - exact).max() < 20
    assert np.abs(fast - exact).mean() < 1
    assert np.array_equal(coarse, fast)  # of nearly the whole image


def test_a_small_part_is_read_fast_with_all_its_detail_and_coarsely_without(saved):
    path = saved(Image.fromarray(draw_scene(403, 517)), "image.jpg", quality=90)
    exact, fast, coarse = (read_image(path, 24, lambda height, width: (10, 20, 40, 40), decode=decode).astype(int)
                           for decode in ("exact", "fast", "coarse"))
    assert np.array_equal(fast, exact)
    assert np.abs(coarse - exact).max() > 20


@pytest.mark.parametrize(("name", "size"), [("image.png", 40), ("image.jpg", 102)])
def test_a_fast_reading_is_exact_where_nothing_can_be_left_out(saved, name, size):
    path = saved(Image.fromarray(draw_scene(403, 517)), name)
    exact, fast = (read_image(path, size, make_central_box(1.0), decode=decode) for decode in ("exact", "fast"))
    assert np.array_equal(fast, exact)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["image.tif", "image.jpg", "image.png", "image.webp"])
@pytest.mark.parametrize("decode", ["exact", "fast", "coarse"])
def test_the_box_is_asked_for_of_the_upright_size_in_every_format(saved, name, orientation, decode):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(Image.fromarray(draw_scene(40, 64)), name, exif=exif)
    told = []

    def box(height, width):
        told.append((height, width))
        return 3, 5, height - 9, width - 7
    found = read_image(path, 24, box, decode=decode)
    upright = Image.fromarray(decode_image(path))
    assert set(told) == {(upright.height, upright.width)}
    assert np.array_equal(found, scale_image(upright, 24, (3, 5, upright.height - 9, upright.width - 7)))


def test_a_fast_reading_names_a_damaged_file(tmp_path):
    Image.fromarray(draw_scene(403, 517)).save(tmp_path / "bad.jpg")
    (tmp_path / "bad.jpg").write_bytes((tmp_path / "bad.jpg").read_bytes()[:5000])
    with pytest.raises(UserError, match=r"bad.jpg: cannot be read as an image .*truncated"):
        read_image(tmp_path / "bad.jpg", 24, make_central_box(1.0), decode="fast")


def test_make_central_box():
    assert make_central_box(1.0)(10, 6) == (2, 0, 6, 6)
    assert make_central_box(0.5)(8, 20) == (2, 8, 4, 4)
    assert pickle.loads(pickle.dumps(make_central_box(0.5)))(8, 20) == (2, 8, 4, 4)  # spawned data workers need that


def truncated(folder):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(noise).save(folder / "bad.jpg")
    whole = (folder / "bad.jpg").read_bytes()
    (folder / "bad.jpg").write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize(("damage", "what"), [
    (truncated, "truncated"),
    (lambda folder: (folder / "bad.jpg").touch(), "empty file"),
    (lambda folder: (folder / "bad.jpg").write_text("an apple\n"), "no known image format"),
    (lambda folder: (folder / "bad.jpg").mkdir(), "directory"),
    (lambda folder: None, "No such file"),
], ids=["truncated", "empty", "text", "folder", "absent"])
def test_bad_file_is_named_with_what_to_do(tmp_path, damage, what):
    damage(tmp_path)
    with pytest.raises(UserError, match=what) as caught:
        decode_image(tmp_path / "bad.jpg")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'bad.jpg'}: ")
    assert "dataset.on_bad_image=skip" in message
    assert "\n" not in message
