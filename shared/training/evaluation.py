"""Evaluating weights that were trained before: reading them, and reporting their scores."""

from typing import Any

import numpy as np

from shared.errors import UserError
from shared.machine.files import find_weight_file, write_arrays
from shared.scores import name_scores_by_split
from shared.weights.file import Shapes, Weights, read_classes, read_weights, require_matching_tensors


def read_weights_to_evaluate(source: str, shapes: Shapes, classes: tuple[str, ...]) -> Weights:
    """The weights in `source`, a run folder or a weight file, for a model with `shapes` and a data set with `classes`.

    Raises:
        UserError: where there are none, or they belong to another model or to other classes.
    """
    path = find_weight_file(source)
    trained_on = read_classes(path)
    if trained_on not in ((), classes):
        raise UserError(f"{path} was trained on the classes {', '.join(trained_on[:5])} ..., the data set has "
                        f"{', '.join(classes[:5])} ...; set dataset.name and dataset.root to what it was trained on")
    weights = read_weights(path)
    require_matching_tensors(weights, shapes, path)
    return weights


def report_scores(framework: str, source: str, test: dict[str, np.ndarray],
                  scores: list[dict[str, float]]) -> dict[str, Any]:
    """Print and return the scores, and write the test predictions beside the weights that `source` names.

    `test` holds logits (n, K), index and label (n,); `scores` are those of the validation and of the test images.

    Raises:
        UserError: where the predictions cannot be written, as in a folder that is for reading only. The scores are
            printed then, too.
    """
    file = find_weight_file(source).parent / f"predictions_{framework}.npz"
    result = name_scores_by_split(*scores)
    print("  ".join(f"{name} {value:.4f}" for name, value in result.items())
          + f"  ({len(test['label']):,} test images, by {framework})")
    try:
        write_arrays(file, **test)
    except UserError as error:
        reason = getattr(error.__context__, "strerror", None) or error.__context__
        raise UserError(f"the scores above are whole, but {file} cannot be written ({reason}); to keep the predictions "
                        "too, make room or name a copy of the run folder") from None
    print(f"predictions: {file}")
    return {"framework": framework, "predictions": str(file), **result}
