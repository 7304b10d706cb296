"""Image files as pixels. Both siblings read files with these functions, so that both get the same pixels."""

import os
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from shared.errors import UserError

Box = Callable[[int, int], tuple[float, float, float, float]]

# Formats whose images Pillow opens as 32-bit integers although their pixels have 16 bits.
SIXTEEN_BIT_FORMATS = ("PNG", "PPM")


def decode_image(path: str | os.PathLike) -> np.ndarray:
    """The pixels of an image file, (H, W, 3) uint8 sRGB, upright as its EXIF orientation asks.

    Grey becomes three equal channels. Of 16 bits the upper eight are kept. Transparent parts are laid over white, as
    in a browser. An animation counts as its first frame. An embedded ICC profile is not applied; the decoders of
    torchvision and TensorFlow do not apply it either.

    Raises:
        UserError: the file is missing, empty, truncated or no image, or its pixels have 32 bits, whose range is not
            known.
    """
    return np.array(open_rgb(path))


def read_image(path: str | os.PathLike, size: int, box: Box, interpolation: str = "bilinear") -> np.ndarray:
    """A part of an image file scaled to (size, size, 3) uint8, antialiased.

    Args:
        path: the image file.
        size: height and width of the result in pixels.
        box: a function of the height and width of the decoded image that returns the part to take: (top, left,
            height, width) in pixels, which may be fractions.
        interpolation: bilinear or bicubic.

    Raises:
        UserError: as in `decode_image`.
    """
    image = open_rgb(path)
    return scale_image(image, size, box(image.height, image.width), interpolation)


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
    try:
        with Image.open(path) as image:
            ImageOps.exif_transpose(image, in_place=True)
            return convert_to_rgb(image)
    except Exception as error:  # damaged files make decoders raise struct.error, zlib.error, IndexError and more
        raise UserError(f"{path}: cannot be read as an image ({describe_error(path, error)}); repair or remove it, or "
                        "let such files be left out with dataset.on_bad_image=skip") from error


def convert_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in SIXTEEN_BIT_FORMATS):
        # Pillow's own conversion turns every value above 255 into white.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("32-bit pixels without a known range; convert it to 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def describe_error(path: str | os.PathLike, error: Exception) -> str:
    """What is wrong with a file, in one line and without its name."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnidentifiedImageError):
        return "empty file" if os.path.getsize(path) == 0 else "no known image format"
    return (str(error).splitlines() or [""])[0] or type(error).__name__
