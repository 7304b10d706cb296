"""The views of an image that test-time augmentation shows a model, `evaluate.tta`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class View:
    """An image, mirrored left and right or not, and then moved by `shift` pixels, down and right where positive.

    What comes in at the border is the image mirrored at its edge. `weight` is the view's share in the mean of logits.
    """

    mirrored: bool
    shift: int
    weight: float


NONE = (View(False, 0, 1.0),)
MIRROR = (View(False, 0, 0.5), View(True, 0, 0.5))
# As airbench does: https://github.com/KellerJordan/cifar10-airbench, `infer_mirror_translate`.
MIRROR_TRANSLATE = (View(False, 0, 0.25), View(True, 0, 0.25), *(
    View(mirrored, shift, 0.125) for mirrored in (False, True) for shift in (1, -1)))
VIEWS = {"none": NONE, "mirror": MIRROR, "mirror_translate": MIRROR_TRANSLATE}
