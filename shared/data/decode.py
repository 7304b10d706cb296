"""Image files as pixels. Both siblings read files with these functions, so that both get the same pixels."""

import contextlib
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from shared.errors import UserError

Box = Callable[[int, int], tuple[float, float, float, float]]
Extent = Callable[[int, int], float]

# Formats whose images Pillow opens as 32-bit integers although their pixels have 16 bits.
SIXTEEN_BIT_FORMATS = ("PNG", "PPM")
EIGHT_BIT_ENDINGS = (".jpg", ".jpeg", ".gif", ".bmp", ".webp")
BITS_PER_SAMPLE = 258  # a TIFF's tag

# Formats that Pillow names and that are no photographs which it can decode alone.
NO_PHOTOGRAPHS = frozenset({
    "BUFR", "GRIB", "HDF5", "MPEG", "WMF",  # Pillow knows them by name and has no decoder
    "EPS",                                  # drawings, for which it starts Ghostscript
    "FITS",                                 # measurements, whose range is not known
    "PSD", "IPTC",                          # what an editor works on lies beside the image that it makes
    "CUR", "GBR", "ICNS", "ICO",            # cursors, brushes and icons, decoded before their pixels are counted
    "BLP", "DDS", "FTEX", "FLI",            # textures and animations of games
})

# EXIF orientations: stored rows are columns of the upright image; its top row is the last row or column as stored; and
# so is its left column.
SIDEWAYS, UPSIDE_DOWN, MIRRORED = (5, 6, 7, 8), (3, 4, 7, 8), (2, 3, 6, 7)

HEIF = (".heic", ".heif", ".hif")  # what telephones write
with contextlib.suppress(ImportError):  # it is read where the user has installed pillow-heif
    import pillow_heif
    pillow_heif.register_heif_opener()
# Pillow warns from 89 megapixels on and refuses from 179 on. Whoever names a folder means to have its images read.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# The pixels are whole all the same.
warnings.filterwarnings("ignore", "Corrupt EXIF data|Metadata Warning", module="PIL")


@cache
def list_formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read: of all that it can open, but `NO_PHOTOGRAPHS`."""
    Image.preinit()  # first, so that Pillow goes on trying the most common formats first
    Image.init()
    return tuple(name for name in Image.ID if name not in NO_PHOTOGRAPHS)


def decode_image(path: str | os.PathLike) -> np.ndarray:
    """The pixels of an image file, (H, W, 3) uint8 sRGB, upright as its EXIF orientation asks.

    Grey becomes three equal channels. Of 16 bits the upper eight are kept, and so of a TIFF's 12. Transparent parts are
    laid over white, as in a browser. An animation counts as its first frame. An embedded ICC profile is not applied;
    the decoders of torchvision and TensorFlow do not apply it either.

    Raises:
        UserError: the file is missing, empty, truncated or no image, or its pixels have 32 bits, whose range is not
            known.
    """
    return np.array(open_rgb(path))


class Frame(NamedTuple):
    """How the pixels that a decoder gave lie in the upright image: its `height` and `width`, how many of its pixels one
    of them stands for along each side, and by how many they begin `above` and `before` it."""

    height: int
    width: int
    factor: int = 1
    above: int = 0
    before: int = 0

    def shrink(self, part: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        """A part of the upright image, as a part of the pixels that the decoder gave."""
        top, left, height, width = part
        return tuple(edge / self.factor for edge in (top + self.above, left + self.before, height, width))


def read_image(path: str | os.PathLike, size: int, box: Box, interpolation: str = "bilinear",
               decode: str = "exact") -> np.ndarray:
    """A part of an image file scaled to (size, size, 3) uint8, antialiased.

    Args:
        path: the image file.
        size: height and width of the result in pixels.
        box: a function of the height and width of the decoded image that returns the part to take: (top, left,
            height, width) in pixels, which may be fractions.
        interpolation: bilinear or bicubic.
        decode: fast or coarse lets a JPEG's decoder leave out the finest detail, so that it gives an image of 1/2, 1/4
            or 1/8 of the height and width: fast where the part to take, coarse where the whole image still has twice
            `size` pixels along each side.

    Raises:
        UserError: as in `decode_image`.
    """
    extent = {"exact": None, "fast": lambda height, width: min(box(height, width)[2:]), "coarse": min}[decode]
    with name_bad_file(path):
        image, frame = open_framed(path, size, extent)
        return scale_image(image, size, frame.shrink(box(frame.height, frame.width)), interpolation)


def open_framed(path: str | os.PathLike, size: int, extent: Extent | None) -> tuple[Image.Image, Frame]:
    """An upright image of mode RGB, which a JPEG's decoder may shrink as long as `extent` keeps twice `size` pixels.

    `extent` is a function of the upright image's height and width; None for all pixels. An error is the decoder's own.
    """
    with open_header(path) as image:
        # Of other formats the header may tell another size than the upright image has: Pillow turns a TIFF's at once.
        if extent is None or image.format not in ("JPEG", "MPO"):
            image = make_upright(image)
            return image, Frame(image.height, image.width)
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        height, width = image.size if orientation in SIDEWAYS else image.size[::-1]
        factor = choose_shrinkage(extent(height, width), size)
        # `draft` returns None where it cannot be done.
        if factor == 1 or not image.draft(None, (image.width // factor, image.height // factor)):
            return make_upright(image), Frame(height, width)
        # The last stored row and column stand for fewer pixels than the others, and may be the upright image's first
        # ones.
        rows, columns = image.size if orientation in SIDEWAYS else image.size[::-1]
        above = factor * rows - height if orientation in UPSIDE_DOWN else 0
        before = factor * columns - width if orientation in MIRRORED else 0
        return make_upright(image), Frame(height, width, factor, above, before)


def choose_shrinkage(extent: float, size: int) -> int:
    """By how much a decoder may shrink what is `extent` pixels long, so that twice `size` are left."""
    return next((factor for factor in (8, 4, 2) if extent >= 2 * size * factor), 1)


def scale_image(image: Image.Image, size: int, box: tuple[float, float, float, float],
                interpolation: str = "bilinear") -> np.ndarray:
    """The box (top, left, height, width) of an image as (size, size) or (size, size, 3) uint8."""
    top, left, height, width = box
    # A rounding error can put an edge outside the image, which Pillow refuses.
    edges = max(left, 0), max(top, 0), min(left + width, image.width), min(top + height, image.height)
    return np.array(image.resize((size, size), Image.Resampling[interpolation.upper()], box=edges))


def make_central_box(share: float) -> Box:
    """A box for `read_image`: the central square whose side is `share` of the shorter side of the image."""
    return partial(compute_central_box, share)  # not a closure, since processes that read images have to pickle it


def compute_central_box(share: float, height: int, width: int) -> tuple[float, float, float, float]:
    side = share * min(height, width)
    return (height - side) / 2, (width - side) / 2, side, side


def open_rgb(path: str | os.PathLike) -> Image.Image:
    """An image file as an upright image of mode RGB. Raises `UserError` as `decode_image` does."""
    with name_bad_file(path):
        return open_upright(path)


@contextlib.contextmanager
def name_bad_file(path: str | os.PathLike) -> Iterator[None]:
    """Turn an error in decoding a file into a `UserError` that names it and says what to do."""
    try:
        yield
    except Exception as error:  # damaged files make decoders raise struct.error, zlib.error, IndexError and more
        raise UserError(f"{path}: cannot be read as an image ({describe_error(path, error)}); repair or remove it, or "
                        "let such files be left out with dataset.on_bad_image=skip") from error


def open_upright(path: str | os.PathLike) -> Image.Image:
    """The same, but an error is the decoder's own. `describe_error` puts it into words."""
    with open_header(path) as image:
        return make_upright(image)


def make_upright(image: Image.Image) -> Image.Image:
    """An image as its EXIF orientation asks, in mode RGB."""
    ImageOps.exif_transpose(image, in_place=True)
    return convert_to_rgb(image)


def open_header(path: str | os.PathLike) -> Image.Image:
    """An image file of which the header alone is read so far."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a pipe would wait for whoever writes to it
        raise ValueError("a pipe or a device; save it as a file")
    return Image.open(path, formats=list_formats())


def convert_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in SIXTEEN_BIT_FORMATS):
        # Pillow's own conversion turns every value above 255 into white.
        is_twelve = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE) == (12,)
        return Image.fromarray((np.asarray(image) >> (4 if is_twelve else 8)).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("32-bit pixels without a known range; convert it to 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    image.load()
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it


def describe_error(path: str | os.PathLike, error: Exception) -> str:
    """What is wrong with a file, in one line and without its name."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnidentifiedImageError):
        return "empty file" if os.path.isfile(path) and os.path.getsize(path) == 0 else "no known image format"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than the {2 * Image.MAX_IMAGE_PIXELS:,} pixels that Pillow reads; scale it down"
    if "MAX_TEXT" in str(error):  # PngImagePlugin's limits on what is compressed beside the pixels
        return "it holds a text or a colour profile above a megabyte, which Pillow refuses; save it without metadata"
    return (str(error).splitlines() or [""])[0] or type(error).__name__


def describe_dark_bits(files: np.ndarray, root: str, enough: int = 16, most: int = 256) -> str:
    """A line about files whose pixels have 16 bits of which the upper ones are empty in all that are looked at, as
    cameras and microscopes of 12 bits write them; empty where there are none.

    Of the files that can have 16 bits so many are opened, evenly spread, until `enough` of them have.
    """
    candidates = [file for file in files.tolist() if not file.lower().endswith(EIGHT_BIT_ENDINGS)]
    places = np.unique(np.linspace(0, len(candidates) - 1, min(most, len(candidates))).astype(int))
    deep, brightest = [], 0
    for file in (candidates[place] for place in places):
        # Whatever is wrong with it is told when the image is needed.
        with contextlib.suppress(UserError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            if len(deep) < enough and has_sixteen_bits(file):
                brightest = max(brightest, int(decode_image(file).max()))
                deep.append(file)
    bits = 8 + brightest.bit_length()
    if not deep or bits > 14:
        return ""
    return (f"images of 16 bits come out far too dark: no pixel of the {len(deep)} looked at, such as "
            f"{os.path.relpath(deep[0], root)}, uses more than the lower {bits} bits; multiply the values of all files "
            f"by {2 ** (16 - bits)}, once, and save them anew")


def has_sixteen_bits(path: str) -> bool:
    """Whether the pixels of an image file have 16 bits, and any number of channels. Only its header is read."""
    with open_header(path) as image:
        # Pillow opens colours of 16 bits as 8-bit ones, and names the stored ones in how it is to unpack them.
        return image.mode == "I;16" or (image.mode == "I" and image.format in SIXTEEN_BIT_FORMATS) or bool(
            re.search(r";16|\b65535\b", str([tile[3] for tile in image.tile])))
