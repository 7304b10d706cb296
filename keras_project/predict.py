"""Ask a trained model about images with Keras, also a model that PyTorch Lightning trained or that was exported."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# This program runs the code beside it, even where the environment was installed from another clone.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from shared.artifacts.prediction.command import run_command


def build_compute(trained: Any) -> Callable[[np.ndarray], np.ndarray]:
    """The model that `shared.runs.trained.read_trained` returned, as a function from images (n, S, S, C) of values 0 to
    255 to logits (n, K) float32.

    Raises:
        UserError: where the weights do not fit the model, or the machine lacks what the config asks for.
    """
    from keras_project.augment import build_normalisation
    from keras_project.executor import require_tensorflow
    from keras_project.models import build_model, load_weights, neutral_shapes
    from keras_project.runtime import build_runtime
    from keras_project.views import average_views

    require_tensorflow("predict.py")
    runtime = build_runtime(trained.config)
    model = build_model(trained.config, trained)
    load_weights(model, trained.read_weights(neutral_shapes(model)))
    model = average_views(model, trained.config.evaluate.tta)
    seen = trained.preprocessing
    normalise = build_normalisation(seen.mean, seen.std, runtime.dtype)
    return lambda images: model.predict_on_batch(normalise(images)).astype(np.float32)


def predict(run: str | os.PathLike, images: Iterable[Any], settings: Sequence[str] = ()) -> Iterator[Any]:
    """What the model in `run` says about each of the images, in order: a `Prediction` of
    `shared.artifacts.prediction.answers`, with `path`, `class_name`, `probability`, `logits` and
    `rank(k)`. A file that cannot be read has an `error` instead.

    Args:
        run: a run folder or weight file of either sibling, or an exported model. It is loaded once for each call.
        images: names of files, Pillow images, or arrays (H, W, 3) or (H, W, 1) uint8. They may come from a generator.
        settings: words such as "train.eval_batch_size=64".

    Raises:
        UserError: where there is no such model, or an image is none of these.
    """
    from shared.artifacts.prediction.answers import predict_images

    return predict_images(build_compute, run, images, settings)


if __name__ == "__main__":
    run_command(build_compute, "keras", __doc__)
