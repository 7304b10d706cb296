"""What a run answered to its test images, and these images as its model sees them."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy.special import softmax

from shared.config import Config, read_kept_config
from shared.data.images import open_image
from shared.data.loading import Data, load_data
from shared.data.preprocessing import Preprocessing
from shared.errors import UserError
from shared.runs.records import SavedRun, read_run
from shared.scores.summary import require_finite


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers of a run to n test images of K classes. A row is a place among them, from 0 to n - 1.

    `index` (n,) int64 are the images' places in `data.test`, `truth` (n,) int64 their classes, and `probabilities`
    (n, K) float64.
    """

    run: SavedRun
    config: Config
    data: Data
    index: np.ndarray
    truth: np.ndarray
    probabilities: np.ndarray

    @cached_property
    def given(self) -> np.ndarray:
        """The class of each answer, (n,) int64."""
        return self.probabilities.argmax(axis=1)

    @cached_property
    def sureness(self) -> np.ndarray:
        """The probability of each answer, (n,) float64."""
        return self.probabilities.max(axis=1)

    @cached_property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing.of_config(self.config)

    def name_image(self, row: int) -> str:
        """Its file, below the data set's folder, or its number among the test images."""
        place, files = self.index[row], self.data.test.files
        return f"test image {place}" if files is None else os.path.relpath(files[place], self.data.root)

    def read_image(self, row: int) -> np.ndarray:
        """The image as the model sees it, (S, S, C), of values 0 to 255, uint8 or float32."""
        return self.preprocessing.scale(open_image(self.data.test, self.index[row]))


def read_answers(folder: Path, others: Iterable[Answers] = ()) -> Answers:
    """The answers of the finished run in `folder`. Its data set is taken from `others` where they have the same.

    Raises:
        UserError: where the run is unfinished or has no finite predictions, or its test images are gone or are not
            those of its predictions.
    """
    run = read_run(folder)
    if not run.finished:
        raise UserError(f"{folder} is an unfinished run: it has no result.json; go on with it by resume=auto, or name "
                        "a finished one")
    predictions = run.predictions
    if predictions is None:
        raise UserError(f"{folder} has no predictions.npz; write it with python {run.framework}_project/evaluate.py "
                        f"{folder} && mv {folder}/predictions_{run.framework}.npz {folder}/predictions.npz")
    require_finite(predictions, "test")
    kept = folder / "config.yaml"
    config = read_kept_config(kept.read_text(encoding="utf-8"), kept)
    root = config.dataset.root
    if root and not os.path.isdir(os.path.expanduser(root)):
        raise UserError(f"{kept}: dataset.root={root} is no folder here, so its test images cannot be shown; bring it "
                        "back, or write its new place there")
    same = (other.data for other in others
            if (other.config.dataset, other.config.seed) == (config.dataset, config.seed))
    data = next(same, None) or load_data(config)
    if run.record.get("fingerprints.test") != data.fingerprints()["test"] \
            or predictions.index.max() >= len(data.test) or predictions.logits.shape[1] != len(data.classes) \
            or not np.array_equal(data.test.labels[predictions.index], predictions.label):
        raise UserError(f"{folder} was tested on other images than {config.dataset.name} has now; restore them as they "
                        "were, or train anew")
    return Answers(run, config, data, predictions.index, predictions.label,
                   softmax(predictions.logits.astype(np.float64), axis=1))
