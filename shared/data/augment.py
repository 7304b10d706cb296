"""How each image is augmented in each epoch, as numbers: a pure function of (seed, epoch, index).

Nothing here touches a pixel. For images in memory, a crop or a resize is two small matrices per image, which a sibling
multiplies with the image. So the arithmetic of resampling is written once, here, for both siblings, and a crop is
exact, since its matrices hold only zeros and ones.
"""

from functools import lru_cache

import numpy as np
from scipy.special import betaincinv

from shared.config import AugmentConfig
from shared.data.sampling import AUGMENT, draw_uniforms

# The columns of an image's draws, by what each decides.
TOP, LEFT, FLIP, AREA, ASPECT, MIX, KIND, SHARE, BOX_Y, BOX_X = range(10)


@lru_cache(maxsize=2)  # two, because readers begin with the next epoch before the present one has ended
def draw_epoch(n: int, seed: int, epoch: int, alternating_flip: bool = False) -> np.ndarray:
    """The draws of all `n` images, (n, 10) float64 in [0, 1). A row depends on its index, not on `n`.

    With `alternating_flip`, the draw that decides about mirroring is that of epoch 0, moved by 1/2 in every second
    epoch, so that it falls into the other half (arXiv:2404.00498).
    """
    draws = draw_uniforms(n * 10, seed, AUGMENT, epoch).reshape(n, 10)
    if alternating_flip and epoch:
        first = draw_uniforms(n * 10, seed, AUGMENT, 0).reshape(n, 10)[:, FLIP]
        draws[:, FLIP] = first + (epoch % 2) * np.where(first < 0.5, 0.5, -0.5)
    return draws


def choose_resized_boxes(settings: AugmentConfig, draws: np.ndarray, height: float, width: float) -> np.ndarray:
    """A random area of random aspect ratio inside each image, (n, 4) float64: top, left, height, width.

    The area and the logarithm of the aspect ratio are uniform (arXiv:1409.4842, section 6). Where the drawn shape does
    not fit, its longer side is cut to the image. Libraries draw again instead.
    """
    area = height * width * (settings.min_area + (1 - settings.min_area) * draws[:, AREA])
    aspect = np.exp((2 * draws[:, ASPECT] - 1) * np.log(settings.max_aspect))
    box_height = np.minimum(np.sqrt(area / aspect), height)
    box_width = np.minimum(np.sqrt(area * aspect), width)
    return np.stack([(height - box_height) * draws[:, TOP], (width - box_width) * draws[:, LEFT], box_height,
                     box_width], axis=1)


def choose_offsets(settings: AugmentConfig, draws: np.ndarray) -> np.ndarray:
    """Where the window starts, relative to the image before padding: y and x, (n, 2) int64 in [-padding, padding]."""
    span = 2 * settings.crop_padding + 1
    return (draws[:, [TOP, LEFT]] * span).astype(np.int64) - settings.crop_padding


def build_resampling(start: np.ndarray, length: np.ndarray, size_in: int, size_out: int,
             interpolation: str = "bilinear") -> np.ndarray:
    """Matrices that resize `length` pixels from `start` on to `size_out`, (n, size_out, size_in) float32.

    They antialias as Pillow's `resize(box=...)` does: where a target pixel is larger than a source pixel, the filter is
    wider by the same factor. The bilinear filter is a triangle, the bicubic one Keys' cubic
    (doi:10.1109/TASSP.1981.1163711) with a = -1/2.
    """
    scale = (length / size_out)[:, None]
    centre = start[:, None] + (np.arange(size_out) + 0.5) * scale  # (n, size_out), in source pixels
    distance = np.abs(np.arange(size_in) + 0.5 - centre[:, :, None]) / np.maximum(scale, 1.0)[:, :, None]
    if interpolation == "bicubic":
        near = (1.5 * distance - 2.5) * distance**2 + 1
        far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        weight = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    else:
        weight = np.maximum(1.0 - distance, 0.0)
    return (weight / weight.sum(axis=-1, keepdims=True)).astype(np.float32)


def build_shifts(offset: np.ndarray, size: int, fill: str = "zeros") -> np.ndarray:
    """Matrices that move an image by whole pixels and fill the gap with zeros or, where `fill` is "reflect", with the
    image mirrored about the centre of its outermost pixel, as `numpy.pad` does; (n, size, size) float32."""
    source = np.arange(size)[:, None] + offset[:, None, None]  # (n, size, 1), the pixel that each new one is taken from
    if fill == "reflect":
        source = np.abs((source + size - 1) % max(2 * size - 2, 1) - (size - 1))
    return (np.arange(size) == source).astype(np.float32)


def build_geometry(settings: AugmentConfig, draws: np.ndarray | None, height: int, width: int, size: int,
                   interpolation: str = "bilinear", center_crop: float = 1.0) -> tuple[np.ndarray, np.ndarray] | None:
    """Matrices for rows (n, size, height) and columns (n, size, width), float32; the new image is
    `rows @ image @ columns.T`. None where the image stays as it is.

    `draws` is None for images that are not augmented. Where no random area is cut out, `center_crop` is the share of
    each side that is kept, around the centre.
    """
    if draws is not None and settings.crop == "resized":
        top, left, box_height, box_width = choose_resized_boxes(settings, draws, height, width).T
        return (build_resampling(top, box_height, height, size, interpolation),
                build_resampling(left, box_width, width, size, interpolation))
    whole = None
    if (height, width) != (size, size) or center_crop != 1:
        whole = tuple(build_resampling(np.array([(1 - center_crop) / 2 * length]), np.array([center_crop * length]),
                                       length, size, interpolation) for length in (height, width))
    if draws is None or settings.crop == "none" or settings.crop_padding == 0:
        return whole
    moved = tuple(build_shifts(offset, size, settings.crop_fill) for offset in choose_offsets(settings, draws).T)
    return moved if whole is None else tuple(move @ resize for move, resize in zip(moved, whole, strict=True))


def choose_flips(settings: AugmentConfig, draws: np.ndarray) -> np.ndarray:
    """Which images are mirrored, (n,) bool."""
    return draws[:, FLIP] < (0.5 if settings.flip else 0.0)


def uses_mixing(settings: AugmentConfig) -> bool:
    return settings.mix_probability > 0 and (settings.mixup_alpha > 0 or settings.cutmix_alpha > 0)


def choose_mixing(settings: AugmentConfig, draws: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """How each image of a batch is mixed with its partner.

    An image's partner is its neighbour: 0 with 1, 2 with 3 and so on. This is a random choice, since the order of the
    images is random, and both are on one device when a batch is shared out. The last image of an odd batch is its own
    partner.

    Returns:
        partner (n,) int32; box (n, 4) int32, the pixels taken from the partner: top, left, bottom, right;
        opacity (n,) float32, the share of the image itself outside the box; share (n,) float32, its share of the
        target.
    """
    n = len(draws)
    partner = np.arange(n) ^ 1
    partner[partner == n] = n - 1
    chosen = draws[:, MIX] < settings.mix_probability
    odds = 0.5 if settings.mixup_alpha and settings.cutmix_alpha else float(settings.cutmix_alpha > 0)
    cut = chosen & (draws[:, KIND] < odds)
    blend = chosen & ~cut

    def beta(alpha: float) -> np.ndarray:
        # The inverse distribution function makes one draw of one uniform number, in every version of NumPy.
        return betaincinv(alpha, alpha, draws[:, SHARE]) if alpha else np.ones(n)

    half = (0.5 * np.sqrt(1 - beta(settings.cutmix_alpha)) * size).astype(np.int64)[:, None]
    centre = (draws[:, [BOX_Y, BOX_X]] * size).astype(np.int64)
    box = np.clip(np.concatenate([centre - half, centre + half], axis=1), 0, size) * cut[:, None]
    opacity = np.where(blend, beta(settings.mixup_alpha), 1.0)
    kept = 1 - (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) / size**2
    return {"partner": partner.astype(np.int32), "box": box.astype(np.int32), "opacity": opacity.astype(np.float32),
            "share": (opacity * kept).astype(np.float32)}
