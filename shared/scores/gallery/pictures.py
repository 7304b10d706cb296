"""Thumbnails of images, with and without a map over them."""

import base64
import io

import numpy as np
from matplotlib import colormaps
from PIL import Image

from shared.data.images import drop_grey

SMALL, LARGE = 128, 192  # pixels; small images are scaled up to about the first, large ones down to the second
COLOURS = "inferno"  # it rises in lightness, and so is read in all common kinds of colour blindness
STRENGTH = 0.7  # of the colours over the image, where the map is at its highest


def draw_image(pixels: np.ndarray) -> Image.Image:
    """An image (S, S, C), of values 0 to 255, as it is shown. Small ones keep their pixels as squares."""
    image = Image.fromarray(drop_grey(np.rint(pixels).astype(np.uint8))).convert("RGB")
    if image.width > LARGE:
        return image.resize((LARGE, LARGE), Image.Resampling.LANCZOS)
    factor = max(1, SMALL // image.width)
    return image.resize((factor * image.width,) * 2, Image.Resampling.NEAREST)


def draw_map(image: Image.Image, values: np.ndarray) -> Image.Image:
    """A map (h, w) of values from 0 up, in colours over the `image`, which is grey where the map is 0."""
    highest = values.max()
    heights = Image.fromarray((values / highest if highest > 0 else np.zeros_like(values)).astype(np.float32))
    heights = np.asarray(heights.resize(image.size, Image.Resampling.BILINEAR))[..., None]  # (H, W, 1), 0 to 1
    colours = colormaps[COLOURS](heights[..., 0])[..., :3]
    grey = np.asarray(image.convert("L"), np.float32)[..., None] / 255
    share = STRENGTH * np.sqrt(heights)
    return Image.fromarray(np.rint(255 * ((1 - share) * grey + share * colours)).astype(np.uint8))


def encode_image(image: Image.Image) -> str:
    """The image as an address that holds all of it, as PNG or as JPEG, whichever is smaller."""
    files = {}
    for kind, options in (("png", {"optimize": True}), ("jpeg", {"quality": 85})):
        with io.BytesIO() as file:
            image.save(file, kind, **options)
            files[kind] = file.getvalue()
    kind = min(files, key=lambda name: len(files[name]))
    return f"data:image/{kind};base64,{base64.b64encode(files[kind]).decode()}"
