"""Weights of classes against scikit-learn's."""

import numpy as np
import pytest

from shared.errors import UserError
from shared.training.imbalance import weigh_classes

LABELS = np.repeat([0, 1, 2], [60, 30, 10])
CLASSES = ("a", "b", "c")


def test_balanced_weights_are_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    np.testing.assert_allclose(weigh_classes(LABELS, CLASSES, "balanced"), expected, rtol=1e-15)


@pytest.mark.parametrize("wanted", ["balanced", "sqrt"])
def test_training_images_weigh_1_on_average(wanted):
    assert weigh_classes(LABELS, CLASSES, wanted)[LABELS].mean() == pytest.approx(1, abs=1e-15)


def test_sqrt_is_the_root_of_balanced_up_to_a_factor():
    ratio = weigh_classes(LABELS, CLASSES, "sqrt") ** 2 / weigh_classes(LABELS, CLASSES, "balanced")
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-14)


def test_none_weighs_nothing_and_a_class_without_images_is_named():
    assert weigh_classes(LABELS, CLASSES, "none") is None
    with pytest.raises(UserError, match=r"train\.class_weights=balanced needs training images .* none of .d.; use"):
        weigh_classes(LABELS, (*CLASSES, "d"), "balanced")
