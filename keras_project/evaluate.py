"""Score weights on the test images with Keras, also weights that PyTorch Lightning trained."""

import sys
from typing import Any

import numpy as np

from shared.command import run_on
from shared.config import Config


def predict(model: Any, config: Config, data: Any, runtime: Any) -> list[dict[str, np.ndarray]]:
    """Logits (n, K) float32, index and label (n,) int64 of every validation and every test image."""
    from keras_project.callbacks import Progress
    from keras_project.data import eval_dataset
    from shared.batches import EvalBatches

    predictions = []
    for split in (data.val, data.test):
        callbacks = [Progress(steps=0)] if sys.stderr.isatty() else []
        logits = model.predict(eval_dataset(config, data, split, runtime), callbacks=callbacks, verbose=0)
        batches = EvalBatches(config, data, split)
        index = np.arange(min(len(split), len(batches) * config.train.eval_batch_size))
        # Whatever fills up a batch stands at its end, and only the last batch has any.
        predictions.append({"logits": logits[:len(index)].astype(np.float32), "index": index,
                            "label": split.labels[index]})
    return predictions


def evaluate(config: Config, source: str) -> dict[str, Any]:
    """The scores of the weights in `source`, a run folder or neutral weight file of either sibling."""
    from keras_project.models import build_model, load_weights, neutral_shapes
    from keras_project.runtime import build_runtime
    from shared.datasets import load
    from shared.experiment import report, weights_of

    # Whatever it was trained on.
    config.hardware.devices, config.hardware.num_nodes, config.hardware.strategy = 1, 1, "auto"
    runtime = build_runtime(config)
    data = load(config)
    model = build_model(config, data)
    load_weights(model, weights_of(source, neutral_shapes(model), data.classes))
    return report("keras", source, *predict(model, config, data, runtime))


if __name__ == "__main__":
    run_on(evaluate, "python keras_project/evaluate.py", __doc__)
