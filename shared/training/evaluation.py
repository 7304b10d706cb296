"""Evaluating weights that were trained before: reading them, and reporting their scores."""

from typing import Any

import numpy as np

from shared.errors import UserError
from shared.machine.files import find_weight_file, write_arrays
from shared.runs.records import Predictions, join_predictions
from shared.scores import name_scores_by_split
from shared.scores.files import write_summary
from shared.scores.report import format_short
from shared.scores.summary import summarise_predictions
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


def report_scores(framework: str, source: str, classes: tuple[str, ...], val: dict[str, np.ndarray],
                  test: dict[str, np.ndarray], scores: list[dict[str, float]]) -> dict[str, Any]:
    """Print the scores, write predictions and all scores beside the weights that `source` names, and return `scores`.

    `val` and `test` hold logits (n, K), index and label (n,); `scores` are those of the validation and of the test
    images. The files' names end in the framework's, so that each sibling's stay.

    Raises:
        UserError: where a file cannot be written, as in a folder that is for reading only, or a logit is not finite.
            The scores are printed then, too.
    """
    folder = find_weight_file(source).parent
    file = folder / f"predictions_{framework}.npz"
    result = name_scores_by_split(*scores)
    print("  ".join(f"{name} {value:.4f}" for name, value in result.items())
          + f"  ({len(test['label']):,} test images, by {framework})")
    summary = summarise_predictions(Predictions(**test), Predictions(**val), classes)
    print(format_short(summary))
    try:
        write_arrays(file, apart=True, **join_predictions(val, test))
        written = write_summary(summary, folder, f"_{framework}")
    except UserError as error:
        cannot = str(error).partition("; what was there before")[0]
        raise UserError(f"the scores above are whole, but {cannot}; to keep predictions and scores too, make room or "
                        "name a copy of the run folder") from None
    print(f"predictions: {file}\nscores: {', '.join(path.name for path in written)} beside it")
    return {"framework": framework, "predictions": str(file), **result}
