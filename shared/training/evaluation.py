"""Scoring weights apart from a training: which weights, and what is said of them."""

from typing import Any

import numpy as np

from shared.errors import UserError
from shared.machine.files import find_weight_file, write_arrays
from shared.scores import name_by_split
from shared.weights.file import Shapes, Weights, read_classes, read_weights, require_fit


def read_weights_to_evaluate(source: str, shapes: Shapes, classes: tuple[str, ...]) -> Weights:
    """The weights to evaluate. Raises `UserError` where they belong to another model or to other classes."""
    path = find_weight_file(source)
    known = read_classes(path)
    if known not in ((), classes):
        raise UserError(f"{path} was trained on the classes {', '.join(known[:5])} ..., the data set has "
                        f"{', '.join(classes[:5])} ...; set dataset.name and dataset.root to what it was trained on")
    weights = read_weights(path)
    require_fit(weights, shapes, path)
    return weights


def report_scores(framework: str, source: str, test: dict[str, np.ndarray],
                  scores: list[dict[str, float]]) -> dict[str, Any]:
    """Print and return the scores; write the test predictions beside the weights they came from.

    `test` holds logits (n, K), index and label (n,); `scores` are those of the validation and of the test images.
    """
    path = find_weight_file(source)
    file = path.parent / f"predictions_{framework}.npz"
    write_arrays(file, **test)
    result = name_by_split(*scores)
    print("  ".join(f"{name} {value:.4f}" for name, value in result.items())
          + f"  ({len(test['label']):,} test images, by {framework})\npredictions: {file}")
    return {"framework": framework, "predictions": str(file), **result}
