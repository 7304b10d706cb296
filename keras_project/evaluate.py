"""Score weights on the test images with Keras, also weights that PyTorch Lightning trained."""

import sys
from pathlib import Path
from typing import Any

import numpy as np

# This program runs the code beside it, even where the environment was installed from another clone.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from shared.config import Config
from shared.config.command import run_command_on


def predict_splits(model: Any, config: Config, data: Any, runtime: Any) -> list[dict[str, np.ndarray]]:
    """Logits (n, K) float32, index and label (n,) int64 of all validation images, and of all test images."""
    from keras_project.data import build_dataset, build_eval_batches
    from keras_project.progress import ProgressBars
    from keras_project.views import average_views

    model, predictions = average_views(model, config.evaluate.tta), []
    for split in (data.val, data.test):
        callbacks = [ProgressBars(steps=0)] if sys.stderr.isatty() else []
        batches = build_eval_batches(config, data, split, runtime)
        logits = model.predict(build_dataset(config, data, batches, runtime), callbacks=callbacks, verbose=0)
        padded = [batches.list_rows(step) for step in range(len(batches))]
        rows, weight = (np.concatenate(part) for part in zip(*padded, strict=True))
        index = rows[weight > 0]  # without the images that batches were filled up with
        predictions.append({"logits": logits[weight > 0].astype(np.float32), "index": index,
                            "label": split.labels[index]})
    return predictions


def evaluate(config: Config, source: str) -> dict[str, Any]:
    """Evaluate the weights in `source`, a run folder or a neutral weight file, and return their scores.

    Raises:
        UserError: where there are none, or they belong to another model or to other classes.
    """
    from keras_project.classifier import score_predictions
    from keras_project.models import build_model, find_entry, load_weights, neutral_shapes
    from keras_project.runtime import build_runtime
    from shared.data.loading import load_data
    from shared.training.evaluation import read_weights_to_evaluate, report_scores
    from shared.weights.pretrained import apply_library_preprocessing

    if not config.dataset.mean:  # the source is a weight file without its run's config
        config = apply_library_preprocessing(config, find_entry(config.model.name))
    # On one device, however many the run was trained on.
    config.hardware.devices, config.hardware.num_nodes, config.hardware.strategy = 1, 1, "auto"
    runtime = build_runtime(config)
    data = load_data(config)
    data.say_remarks()
    model = build_model(config, data)
    load_weights(model, read_weights_to_evaluate(source, neutral_shapes(model), data.classes))
    val, test = predict_splits(model, config, data, runtime)
    scores = [score_predictions(config, len(data.classes), predictions) for predictions in (val, test)]
    return report_scores("keras", source, data.classes, val, test, scores)


if __name__ == "__main__":
    run_command_on(evaluate, "keras", "evaluate.py", __doc__)
