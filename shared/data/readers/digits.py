"""The UCI digits, which scikit-learn contains."""

import numpy as np

from shared.data.arrays import Arrays
from shared.data.definition import Definition
from shared.data.sampling import FIXED_SEED, split_stratified


def read_digits(_definition: Definition, _folder: None) -> tuple[Arrays, Arrays]:
    """Training and test images of the UCI digits that scikit-learn bundles, (1438 | 359, 8, 8, 1) uint8.

    They have no official split. A fifth of each class is the test set, always the same one.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # A value is the number of dark cells in a block of 4 x 4, so 0 to 16 (https://archive.ics.uci.edu/dataset/80).
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]  # (1797, 8, 8, 1)
    labels = bunch.target.astype(np.int64)
    train, test = split_stratified(labels, 0.2, FIXED_SEED)
    return (pixels[train], labels[train]), (pixels[test], labels[test])
