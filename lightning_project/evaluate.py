"""Score weights on the test images with PyTorch Lightning, also weights that Keras trained."""

import sys
from pathlib import Path
from typing import Any

import numpy as np

# This program runs the code beside it, even where the environment was installed from another clone.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from shared.config import Config
from shared.config.command import run_command_on


def predict_splits(trainer: Any, classifier: Any, loaders: Any) -> list[dict[str, np.ndarray]]:
    """Logits (n, K) float32, index and label (n,) int64 of all validation images, and of all test images."""
    predictions = []
    for batches in trainer.predict(classifier, loaders):
        arrays = {name: np.concatenate([batch[name].cpu().numpy() for batch in batches]) for name in batches[0]}
        predictions.append(gather_predictions(arrays))
    return predictions


def gather_predictions(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The predictions of all processes together, in the order of their `index`."""
    from torch import distributed

    parts = [arrays]
    if distributed.is_initialized():
        parts = [None] * distributed.get_world_size()
        distributed.all_gather_object(parts, arrays)
    order = np.argsort(np.concatenate([part["index"] for part in parts]))
    return {name: np.concatenate([part[name] for part in parts])[order] for name in arrays}


def evaluate(config: Config, source: str) -> dict[str, Any]:
    """Evaluate the weights in `source`, a run folder or a neutral weight file, and return their scores.

    Raises:
        UserError: where there are none, or they belong to another model or to other classes.
    """
    import lightning as L

    from lightning_project.classifier import Classifier, score_predictions
    from lightning_project.data import DataModule
    from lightning_project.models import build_model, find_entry, load_weights, neutral_shapes
    from lightning_project.progress import ProgressBars
    from lightning_project.runtime import build_runtime
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
    callbacks = [ProgressBars()] if sys.stderr.isatty() else []
    trainer = L.Trainer(callbacks=callbacks, logger=False, enable_checkpointing=False, **runtime.trainer)
    classifier = Classifier(config, model, len(data.classes), steps=1)
    val, test = predict_splits(trainer, classifier, DataModule(config, data, runtime))
    scores = [score_predictions(config, len(data.classes), predictions) for predictions in (val, test)]
    return report_scores("lightning", source, data.classes, val, test, scores)


if __name__ == "__main__":
    run_command_on(evaluate, "lightning", "evaluate.py", __doc__)
