"""A first layer that whitens: filters whose answers to patches of the training images do not correlate."""

import numpy as np

from shared.config import Config
from shared.data.batches import Batches
from shared.data.loading import Data

IMAGES = 5000      # that the filters are computed from, at most
BATCH = 250        # images that are read at once
SMALLEST = 5e-4    # added to the variance of a component, so that one that hardly varies is not blown up


def compute_whitening(config: Config, data: Data, size: int = 2) -> np.ndarray:
    """The filters, (2 c, C, size, size) float32, where c = C x size x size are the values of a patch.

    They are the principal components of all patches of images from all over the training split, as the model sees them
    in evaluation, each divided by the root of its variance plus SMALLEST; and then the opposite of each
    (arXiv:2404.00498, section 3.1). The mean is not taken off, as in the paper's code.

    The sums are of whole numbers and so are exact, in whatever order a machine adds them up.
    """
    patch = size * size * data.channels
    count, total, products = 0, np.zeros(patch), np.zeros((patch, patch))
    rows = np.unique(np.linspace(0, len(data.train) - 1, IMAGES).astype(np.int64))
    for part in np.array_split(rows, -(-len(rows) // BATCH)):
        patches = cut_patches(read_pixels(config, data, part), size)
        count += len(patches)
        total += patches.sum(axis=0)
        products += patches.T @ patches
    # Of pixels p to those of (p / 255 - mean) / std.
    scale = 1 / (255 * np.repeat(data.std, size * size))
    shift = np.repeat(np.divide(data.mean, data.std), size * size)
    mean = total / count * scale
    second_moments = (products / count * np.outer(scale, scale) - np.outer(mean, shift) - np.outer(shift, mean)
                      + np.outer(shift, shift))
    variances, components = np.linalg.eigh(second_moments)  # from the smallest variance to the largest
    filters = components[:, ::-1] / np.sqrt(variances[::-1] + SMALLEST)
    largest = filters[np.abs(filters).argmax(axis=0), np.arange(patch)]
    filters = (filters * np.sign(largest)).T.reshape(patch, data.channels, size, size)
    return np.concatenate([filters, -filters]).astype(np.float32)


def read_pixels(config: Config, data: Data, rows: np.ndarray) -> np.ndarray:
    """The training images at `rows` without augmentation, (n, S, S, C) float64, whole numbers from 0 to 255."""
    batch = Batches(config, data, data.train).read_images(rows, None)
    pixels = batch["image"].astype(np.float64)
    if "rows" in batch:
        pixels = np.einsum("sh,nhwc,tw->nstc", batch["rows"][0], pixels, batch["columns"][0], optimize=True)
    return np.rint(pixels)


def cut_patches(pixels: np.ndarray, size: int) -> np.ndarray:
    """All patches of images (n, S, S, C), (patches, C x size x size), with their values in the order of a kernel's."""
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (size, size), axis=(1, 2))  # (n, s, s, C, size, size)
    return windows.reshape(-1, pixels.shape[-1] * size * size)
