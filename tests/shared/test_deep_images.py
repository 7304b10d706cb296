"""Files whose pixels have 12 or 16 bits, and files that Pillow refuses although they are whole."""

import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from shared.data.decode import decode_image, describe_dark_bits, has_sixteen_bits
from shared.data.loading import load_data
from shared.errors import UserError
from tests.shared.pictures import config_for, make_pictures


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def write_png(path, pixels, color):
    """(H, W, C) uint16 as a PNG of 16 bits; `color` is the format's number, 0 grey, 2 RGB, 4 grey and 6 RGB with alpha.

    Pillow writes grey alone.
    """
    rows = b"".join(b"\0" + row.tobytes() for row in pixels.astype(">u2"))
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, color, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
                     + chunk(b"IEND", b""))


def write_tiff(path, width, bits, content):
    """A TIFF of one row of grey pixels of so many bits, packed."""
    tags = [(256, 3, width), (257, 3, 1), (258, 3, bits), (259, 3, 1), (262, 3, 1), (273, 4, 122), (277, 3, 1),
            (278, 3, 1), (279, 4, len(content))]
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags))
                     + b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
                     + struct.pack("<I", 0) + content)


# 12 bits that a file states itself

def test_a_tiff_of_twelve_bits_keeps_its_upper_eight(tmp_path):
    write_tiff(tmp_path / "a.tif", 4, 12, bytes([0xFF, 0xF0, 0x00, 0x80, 0x01, 0x23]))  # fff 000 800 123
    assert decode_image(tmp_path / "a.tif")[0].tolist() == [[255] * 3, [0] * 3, [0x80] * 3, [0x12] * 3]
    assert describe_dark_bits(np.array([str(tmp_path / "a.tif")]), str(tmp_path)) == ""


@pytest.mark.parametrize("content", ["P5 2 1 4095\n", "P6 2 1 4095\n"])
def test_a_pnm_says_how_bright_white_is(tmp_path, content):
    (tmp_path / "a.pnm").write_bytes(content.encode() + struct.pack(">H", 4095) * (6 if "6" in content[:2] else 2))
    assert (decode_image(tmp_path / "a.pnm") == 255).all()


# Upper bits that are empty

def grey(path, pixels):
    Image.fromarray(pixels[..., 0]).save(path)


WRITERS = {"grey.png": grey, "grey.tif": grey, "grey.jp2": grey,
           "colour.png": lambda path, pixels: write_png(path, np.repeat(pixels, 3, 2), 2),
           "alpha.png": lambda path, pixels: write_png(path, np.concatenate(
               [np.repeat(pixels, 3, 2), np.full_like(pixels, 65535)], 2), 6),
           "grey.pgm": lambda path, pixels: path.write_bytes(
               b"P5 %d %d 65535\n" % pixels.shape[1::-1] + pixels.astype(">u2").tobytes())}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize(("top", "bits"), [(255, 8), (1023, 10), (4095, 12), (16383, 14), (16384, 0), (65535, 0)])
def test_empty_upper_bits_are_told(tmp_path, name, top, bits):
    files = [tmp_path / f"{number}{name}" for number in range(3)]
    for number, file in enumerate(files):  # the brightest pixel is in the last one
        WRITERS[name](file, np.full((5, 6, 1), top if number == 2 else 100, np.uint16))
    told = describe_dark_bits(np.array(list(map(str, files))), str(tmp_path))
    assert told == (f"images of 16 bits come out far too dark: no pixel of the 3 looked at, such as 0{name}, uses more "
                    f"than the lower {bits} bits; multiply the values of all files by {2 ** (16 - bits)}, once, and "
                    "save them anew" if bits else "")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.gif", "a.bmp", "a.webp"])
def test_eight_bits_are_not_sixteen(tmp_path, name):
    Image.new("RGB", (4, 4), (3, 2, 1)).save(tmp_path / name)
    assert not has_sixteen_bits(tmp_path / name)
    assert describe_dark_bits(np.array([str(tmp_path / name)]), str(tmp_path)) == ""


def test_a_few_are_looked_at_all_over_the_data(tmp_path, monkeypatch):
    for number in range(100):
        Image.fromarray(np.full((2, 2), 9 if number < 50 else 65535, np.uint16)).save(tmp_path / f"{number:03}.png")
    files = np.array([str(tmp_path / f"{number:03}.png") for number in range(100)])
    assert "no pixel of the 16 looked at" in describe_dark_bits(files[:50], "/")
    assert describe_dark_bits(files, "/", most=10) == ""  # the bright ones come last
    read = []
    monkeypatch.setattr("shared.data.decode.has_sixteen_bits", lambda file: read.append(file) or False)
    describe_dark_bits(np.tile(files, 30), "/")
    assert len(read) == 256


def test_the_line_is_told_once_and_damaged_files_wait(tmp_path):
    root = make_pictures(tmp_path, {"cat": 12, "dog": 12})
    for number, file in enumerate(sorted(root.rglob("*.png"))):
        Image.fromarray(np.full((4, 4), 4095 - number, np.uint16)).save(file)
    (root / "cat" / "003.png").write_text("damaged")
    (root / "dog" / "003.png").write_bytes(b"")
    [told] = load_data(config_for(root)).remarks
    assert "16 looked at" in told
    assert "lower 12 bits; multiply the values of all files by 16, once" in told


# What Pillow refuses

def with_text(**options):
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 2_000_000, zip=True)
    return {"pnginfo": info, **options}


def with_international_text():
    info = PngImagePlugin.PngInfo()
    info.add_itxt("comment", "x" * 2_000_000, zip=True)
    return {"pnginfo": info}


@pytest.mark.parametrize("options", [with_text(), with_international_text(), {"icc_profile": bytes(2_000_000)}],
                         ids=["zTXt", "iTXt", "iCCP"])
def test_a_large_text_or_profile_is_named(tmp_path, options):
    Image.new("L", (4, 4)).save(tmp_path / "a.png", **options)
    with pytest.raises(UserError, match=r"a\.png: cannot be read as an image \(it holds a text or a colour profile "
                                        r"above a megabyte, which Pillow refuses; save it without metadata\)"):
        decode_image(tmp_path / "a.png")


def test_many_texts_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 1000)
    info = PngImagePlugin.PngInfo()
    for number in range(20):
        info.add_text(f"comment{number}", "x" * 100)
    Image.new("L", (4, 4)).save(tmp_path / "a.png", pnginfo=info)
    with pytest.raises(UserError, match="save it without metadata"):
        decode_image(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # pytest has filters of its own
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg", "a.webp"])
def test_too_many_pixels_are_counted(tmp_path, monkeypatch, name):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2500)
    Image.new("L", (50, 100)).save(tmp_path / name)
    assert decode_image(tmp_path / name).shape == (100, 50, 3)
    Image.new("L", (50, 101)).save(tmp_path / name)
    with pytest.raises(UserError, match=r"it has more than the 5,000 pixels that Pillow reads; scale it down"):
        decode_image(tmp_path / name)


def test_an_image_below_the_limit_is_read_without_a_warning(tmp_path):
    Image.new("L", (50, 60)).save(tmp_path / "a.png")
    script = ("import sys; from PIL import Image; from shared.data.decode import decode_image; "
              "Image.MAX_IMAGE_PIXELS = 2500; print(decode_image(sys.argv[1]).shape)")
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.png")], capture_output=True, text=True,
                          check=True)
    assert (done.stdout, done.stderr) == ("(60, 50, 3)\n", "")
