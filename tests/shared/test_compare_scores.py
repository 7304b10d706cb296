"""The scores of two runs' predictions side by side."""

import numpy as np
import pytest

from shared.compare.classes import compare_scores
from shared.machine.files import write_arrays
from shared.runs.records import join_predictions, read_run
from tests.shared.run_folders import LABELS, make_run, predictions


def rows(table):
    return {row[0]: row[1:] for row in table.rows}


def test_scores_and_the_classes_that_differ_most(tmp_path):
    # Five images of each class. Lightning misses two of class 0; keras one of class 0, all of 1, one of 2 to 7.
    missed = (0, *range(1, 50, 10), *range(2, 8))
    pair = [make_run(tmp_path, "lightning", wrong=(0, 10)), make_run(tmp_path, "keras", wrong=missed)]
    write_arrays(pair[1] / "predictions.npz", **join_predictions(predictions((3,)), predictions(missed)))
    scores, classes = compare_scores([read_run(folder) for folder in pair])
    assert scores.header == ["of the predictions", "lightning", "keras", "keras − lightning"]
    found = rows(scores)
    assert found["accuracy, 95 % interval"] == ["86.54 to 98.90 %", "62.59 to 85.70 %", ""]
    assert found["log loss, nats"][2] == "+0.2000"  # ten more mistakes of 50, each of which costs a nat
    assert found["classes in a set that is to hold 90 %"][0::2] == ["-", "-"]
    assert classes.header == ["recall of the classes that differ most", "images", "lightning", "keras",
                              "keras − lightning"]
    assert classes.rows == [["1", "5", "100.00 %", "0.00 %", "−100.00 points"],
                            ["0", "5", "60.00 %", "80.00 %", "+20.00 points"],
                            *[[str(k), "5", "100.00 %", "80.00 %", "−20.00 points"] for k in (2, 3, 4)]]


def test_runs_that_are_equal_in_each_class(tmp_path):
    pair = [read_run(make_run(tmp_path, framework)) for framework in ("lightning", "keras")]
    assert compare_scores(pair)[1:] == ["The runs have the same recall in each class."]


@pytest.mark.parametrize("change", [
    lambda arrays: arrays | {"label": np.roll(LABELS, 1)},
    lambda arrays: arrays | {"logits": np.pad(arrays["logits"], ((0, 0), (0, 1)))}])
def test_classes_of_other_images_are_not_compared(tmp_path, change):
    pair = [make_run(tmp_path, framework) for framework in ("lightning", "keras")]
    write_arrays(pair[1] / "predictions.npz", **change(predictions((0,))))
    assert len(compare_scores([read_run(folder) for folder in pair])) == 1


def test_only_pairs_of_finished_runs_with_predictions(tmp_path):
    pair = [make_run(tmp_path), make_run(tmp_path, "keras", finished=False)]
    write_arrays(pair[1] / "predictions.npz", **predictions(()))  # of before it was resumed
    assert compare_scores([read_run(folder) for folder in pair]) == []
    other = make_run(tmp_path, "keras", seed=1)
    assert compare_scores([read_run(pair[0])] * 3) == []
    (other / "predictions.npz").unlink()
    assert compare_scores([read_run(pair[0]), read_run(other)]) == []


def test_logits_that_are_not_finite_end_no_comparison(tmp_path):
    pair = [make_run(tmp_path, framework) for framework in ("lightning", "keras")]
    write_arrays(pair[0] / "predictions.npz", **predictions(()) | {"logits": np.full((50, 10), np.nan, np.float32)})
    [line] = compare_scores([read_run(folder) for folder in pair])
    assert line.startswith("The predictions are not compared: logits of test images are not finite")
