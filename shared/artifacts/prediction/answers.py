"""What a model says about images."""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from shared.artifacts.prediction.model import Compute, Model, open_model
from shared.artifacts.prediction.reading import read_ahead, read_item, split
from shared.artifacts.prediction.sources import Item
from shared.errors import UserError, is_out_of_memory
from shared.runs.trained import Trained

NOT_FINITE = "the model answers with numbers that are not finite; its weights are damaged, or its training diverged"


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says about an image: `logits`, (K,) float32, one for each of `classes`.

    `path` is the name that was given, and empty for an image in memory; `label` is the class of the folder that the
    image lies in, and empty where that is not known. Where `error` says why there is no answer, `logits` are None.
    """

    path: str
    label: str
    classes: tuple[str, ...]
    logits: np.ndarray | None
    error: str = ""

    @property
    def class_name(self) -> str:
        """The most probable class; empty where there is an error."""
        return "" if self.error else self.rank(1)[0][0]

    @property
    def probability(self) -> float:
        """That of `class_name`, from 0 to 1; NaN where there is an error."""
        return math.nan if self.error else self.rank(1)[0][1]

    def rank(self, count: int) -> list[tuple[str, float]]:
        """The `count` most probable classes with their probabilities (the softmax of the logits), the first one first;
        of equals, the one that comes first in `classes`. Empty where there is an error."""
        if self.error:
            return []
        shares = np.exp(self.logits.astype(np.float64) - self.logits.max())
        shares /= shares.sum()
        places = np.argsort(-self.logits, kind="stable")[:count]  # of shares, the smallest ones may all be zero
        return [(self.classes[place], float(shares[place])) for place in places]


def predict_items(model: Model, compute: Compute, items: Iterable[Item]) -> Iterator[Prediction]:
    """The model's answers, in the order of the items. Of images, at most about three batches are in memory."""
    size = model.batch_size
    read = partial(read_item, preprocessing=model.preprocessing)
    for batch in split(read_ahead(items, read, model.threads, ahead=size), size):
        readable = [image.pixels for image in batch if not image.error]
        answers = iter(compute_logits(compute, np.stack(readable)) if readable else ())  # (K,) each
        for image in batch:
            logits = None if image.error else next(answers)
            error = image.error or ("" if np.isfinite(logits).all() else NOT_FINITE)
            yield Prediction(image.path, image.label, model.classes, None if error else logits, error)


def compute_logits(compute: Compute, images: np.ndarray) -> np.ndarray:
    try:
        return compute(images)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"memory ran out with {len(images)} images at a time; set train.eval_batch_size to less") \
            from None


def predict_images(build_compute: Callable[[Trained], Compute], run: str | os.PathLike, images: Iterable[Any],
                   settings: Sequence[str]) -> Iterator[Prediction]:
    """What a sibling's `predict` does with its own `build_compute`."""
    if isinstance(images, str | os.PathLike | Image.Image):
        raise UserError("images is a single one; give a list of them: predict(run, [image])")
    model = open_model(os.fspath(run), list(settings), build_compute)
    return predict_items(model, model.load(), map(make_item, images))


def make_item(image: Any) -> Item:
    """An image that a program hands over. Raises `UserError` where it is none."""
    if isinstance(image, str | os.PathLike):
        return Item(os.fspath(image))
    is_array = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and \
        image.shape[2] in (1, 3)
    if not is_array and not isinstance(image, Image.Image):
        kind = f"{image.dtype} of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise UserError(f"an image is a {kind}; give the name of a file, a Pillow image, or an array (H, W, 3) or "
                        "(H, W, 1) uint8")
    return Item("", image=image)
