"""A sample of the test images with what a run answered, for trackers that show images."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.special import softmax

from shared.data.images import Images, drop_grey, open_image
from shared.data.preprocessing import Preprocessing
from shared.data.sampling import EXAMPLES, FIXED_SEED, choose_stratified
from shared.runs.records import Predictions


class Example(NamedTuple):
    """A test image as the model sees it. `probability` is that of the answer."""

    image: Image.Image
    number: int
    label: str
    answer: str
    is_right: bool
    probability: float


def collect_examples(predictions: Predictions, images: Images, preprocessing: Preprocessing,
                     classes: Sequence[str], count: int) -> list[Example]:
    """At most `count` of the test `images`, the same in every run that was tested on them, of each class its share.

    Raises:
        UserError: where the file of one cannot be read any more.
    """
    index, label, logits = predictions
    p = softmax(logits.astype(np.float64), axis=1)
    answer = p.argmax(axis=1)
    return [Example(draw_image(images, int(index[row]), preprocessing), int(index[row]), classes[label[row]],
                    classes[answer[row]], bool(answer[row] == label[row]), float(p[row, answer[row]]))
            for row in choose_stratified(label, min(count, len(label)), FIXED_SEED, EXAMPLES)]


def draw_image(images: Images, place: int, preprocessing: Preprocessing) -> Image.Image:
    pixels = preprocessing.scale(open_image(images, place))  # (S, S, C), of values 0 to 255
    return Image.fromarray(drop_grey(np.rint(pixels).astype(np.uint8)))
