"""What is read of run folders, and what the runs are called."""


import numpy as np
import pytest

from shared.errors import UserError
from shared.runs.records import label_runs, read_run
from tests.shared.run_folders import EPOCHS, LABELS, make_run, predictions


def test_last_row_wins_and_rows_are_in_order(tmp_path):
    rows = [{"samples": 200, "time/train_s": 2.0, "val/loss": 0.5},
            {"samples": 100, "time/train_s": 1.0, "val/loss": 0.9},
            {"samples": 200, "time/train_s": 2.0, "train/loss_step": 7.0},
            {"samples": 200, "time/train_s": 3.0, "val/loss": 0.4}]
    run = read_run(make_run(tmp_path, history=rows))
    samples, seconds, values = run.get_curve("val/loss")
    assert (samples.tolist(), seconds.tolist(), values.tolist()) == ([100, 200], [1, 3], [0.9, 0.4])
    assert run.get_curve("train/loss_step")[2].tolist() == [7.0]


def test_line_that_a_kill_cut_off_is_passed_over(pair):
    with (pair[0] / "metrics.jsonl").open("a") as file:
        file.write('{"samples": 6400, "val/lo')
    assert len(read_run(pair[0]).history) == len(EPOCHS)


@pytest.mark.parametrize("line", ['{"samples": 64, "val/lo', "[]", '{"epoch": 1}',
                                  '{"samples": 1, "time/train_s": 1, "val/loss": "x"}'])
def test_damaged_line_is_named(pair, line):
    with (pair[0] / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl: line 5 "):
        read_run(pair[0])


def test_config_of_another_machine_is_read(tmp_path):
    """Its data set's folder need not exist here."""
    assert read_run(make_run(tmp_path, config={"dataset.root": "/nowhere"})).config["dataset.root"] == "/nowhere"


def test_labels_are_the_shortest_that_tell_runs_apart(tmp_path):
    first = read_run(make_run(tmp_path, "lightning"))
    keras = read_run(make_run(tmp_path, "keras"))
    later = read_run(make_run(tmp_path, "lightning", stamp="20260101-130000"))
    seed1 = read_run(make_run(tmp_path, "lightning", seed=1))
    assert label_runs([first, keras]) == ["lightning", "keras"]
    assert label_runs([first, seed1]) == ["lightning seed 0", "lightning seed 1"]
    assert label_runs([first, later]) == [first.name, later.name]
    other = read_run(make_run(tmp_path, seed=1, stamp="20260103-120000", config={"optimizer.lr": 0.1}))
    assert label_runs([first, seed1, other]) == [f"lightning seed={seed} optimizer.lr={rate}"
                                                 for seed, rate in ((0, 0.02), (1, 0.02), (1, 0.1))]


def test_predictions_that_do_not_belong_together(pair):
    arrays = predictions((0,))
    np.savez_compressed(pair[0] / "predictions.npz", **arrays | {"label": LABELS[:-1]})
    with pytest.raises(UserError, match="do not belong together"):
        _ = read_run(pair[0]).predictions
