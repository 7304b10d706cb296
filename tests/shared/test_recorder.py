"""Rows, clock and final result of a run."""

import json
import math

import numpy as np
import pytest

from shared.runs.folder import RunFolder
from shared.training.trackers.axes import AXES
from tests.shared.recordings import STEPS, make_config, set_clock, start

METRICS = {"train/loss": 1.5, "train/accuracy": 0.5, "val/loss": 2.0, "val/accuracy": 0.25}


@pytest.fixture
def config(tmp_path):
    return make_config(tmp_path)


@pytest.fixture
def clock(monkeypatch):
    return set_clock(monkeypatch)


def go(recorder, clock, epoch, seconds=2.0, **metrics):
    """An epoch of `seconds` and a validation of 50."""
    recorder.begin_epoch()
    for step in range(epoch * STEPS + 1, (epoch + 1) * STEPS + 1):
        clock.now += seconds / STEPS
        recorder.end_step(step, 1.0 / step)
    recorder.end_training_pass()
    clock.now += 50
    recorder.end_epoch((epoch + 1) * STEPS, {**METRICS, **metrics})


def rows_of(recorder):
    text = recorder.run.metrics_file.read_text()
    return [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]


SCORES = [{"accuracy": 1.0, "loss": 0.1}, {"accuracy": 0.75, "loss": 0.2, "top5": 0.9}]  # validation, test


def predictions(n=4):
    return {"logits": np.eye(n, dtype=np.float32), "index": np.arange(n), "label": np.array([0, 1, 2, 0])}


def test_rows_have_all_axes_and_the_names_of_the_dashboard(config, clock):
    recorder = start(config)
    go(recorder, clock, 0)
    rows = rows_of(recorder)
    assert rows == recorder.rows
    assert all(set(AXES) <= set(row) for row in rows)
    # Steps 1, 2 and 4, then the epoch.
    assert [(row["samples"], row["epoch"], row["time/train_s"]) for row in rows] == [
        (10, 0.25, 0.5), (20, 0.5, 1.0), (40, 1.0, 2.0), (40, 1.0, 2.0)]
    assert rows[1] == {"samples": 20, "epoch": 0.5, "time/train_s": 1.0, "train/loss_step": 0.5,
                       "lr": pytest.approx(0.1 - 0.09 / 11)}
    assert rows[-1] == {"samples": 40, "epoch": 1.0, "time/train_s": 2.0, **METRICS,
                        "lr": pytest.approx(0.1 - 3 * 0.09 / 11), "perf/images_per_second": 20.0,
                        "perf/epoch_seconds": 2.0, "perf/peak_memory_gib": 1.5}


def test_validation_does_not_count_as_training_time(config, clock):
    recorder = start(config)
    go(recorder, clock, 0)
    go(recorder, clock, 1, seconds=4.0)
    assert recorder.train_seconds == 6.0
    assert [row["time/train_s"] for row in recorder.list_epoch_rows()] == [2.0, 6.0]
    assert rows_of(recorder)[4]["time/train_s"] == 4.0  # step 6, half through the second epoch


def test_an_epoch_is_told_in_one_line(config, clock, capsys):
    go(start(config), clock, 0)
    assert capsys.readouterr().out == ("epoch 1/3  train/loss 1.5000  train/accuracy 0.5000  val/loss 2.0000  "
                                       "val/accuracy 0.2500  20 images/s\n")


def test_a_run_resumed_within_an_epoch_goes_on_with_rows_and_clock(config, clock):
    recorder = start(config)
    go(recorder, clock, 0)
    recorder.begin_epoch()
    for step in (5, 6):
        clock.now += 3
        recorder.end_step(step, 1.0)
    state = recorder.read_clock()
    assert state == {"train_seconds": 2.0, "epoch_seconds": 6.0}
    clock.now += 3
    recorder.end_step(8, 1.0)  # after the checkpoint, and lost
    run = recorder.run
    clock.now = 7.0  # another process
    resumed = start(config, RunFolder(run.folder, config, "keras", resumed=True))
    resumed.rewind(6, state)
    assert [row["samples"] for row in rows_of(resumed)] == [10, 20, 40, 40, 60]
    resumed.begin_epoch()
    clock.now += 4
    resumed.end_step(8, 1.0)
    assert rows_of(resumed)[-1]["time/train_s"] == 12.0
    resumed.end_training_pass()
    assert resumed.epoch_seconds == 10.0


def test_only_the_leader_writes_and_speaks(config, clock, capsys):
    run = RunFolder.start(config, "keras")
    follower = start(config, RunFolder(run.folder, config, "keras", resumed=False, leader=False))
    go(follower, clock, 0)
    follower.best_epoch = 1
    assert follower.finish(7, predictions(), predictions(), SCORES)["parameters"] == 7
    assert sorted(path.name for path in run.folder.glob("[!.]*")) == ["checkpoints", "config.yaml"]
    assert capsys.readouterr().out == ""


def test_numbers_that_are_not_finite_are_null_in_the_file(config, clock):
    recorder = start(config)
    go(recorder, clock, 0, **{"val/loss": math.nan, "train/loss": math.inf})
    row = rows_of(recorder)[-1]
    assert (row["val/loss"], row["train/loss"], row["val/accuracy"]) == (None, None, 0.25)


# Going on

def resumed(recorder):
    run = RunFolder(recorder.run.folder, recorder.config, "keras", resumed=True)
    return start(recorder.config, run)


def test_rewinding_drops_what_lies_beyond_the_checkpoint_and_a_cut_line(config, clock):
    first = start(config)
    go(first, clock, 0)
    go(first, clock, 1)
    before = first.run.metrics_file.read_text().splitlines()
    with first.run.metrics_file.open("a") as file:
        file.write('{"samples": 90, "epo')
    again = resumed(first)
    again.rewind(STEPS)
    assert first.run.metrics_file.read_text().splitlines() == before[:4]
    assert again.rows == [json.loads(line) for line in before[:4]]
    assert again.train_seconds == 2.0
    go(again, clock, 1, seconds=3.0)
    assert [row["time/train_s"] for row in again.list_epoch_rows()] == [2.0, 5.0]
    assert [row["samples"] for row in rows_of(again)] == [10, 20, 40, 40, 60, 80, 80]


def test_rewinding_without_a_file_starts_an_empty_one(config):
    recorder = start(config)
    recorder.rewind(5)
    assert recorder.rows == []
    assert recorder.run.metrics_file.read_text() == ""


def test_a_new_run_starts_without_a_file(config):
    assert not start(config).run.metrics_file.exists()


@pytest.mark.parametrize(("monitor", "values", "best"), [
    ("val/accuracy", (0.3, 0.9, 0.9), 2), ("val/loss", (3.0, math.nan, 1.0), 3), ("val/loss", (math.nan, 3.0, 4.0), 2)])
def test_a_run_with_nothing_left_to_train_can_finish(config, clock, monitor, values, best):
    """Stopped between its last epoch and its result, and resumed: no callback is ever called."""
    config.train.monitor = monitor
    first = start(config)
    for epoch, value in enumerate(values):
        go(first, clock, epoch, **{monitor: value})
    again = resumed(first)
    result = again.finish(7, predictions(), predictions(), SCORES)
    assert (result["best_epoch"], result["epochs"], result["time/train_s"]) == (best, 3, 6.0)


# The result

def test_the_result_has_exactly_these_keys(config, clock):
    recorder = start(config)
    for epoch, seconds in enumerate((8.0, 1.0, 2.0)):
        go(recorder, clock, epoch, seconds)
    recorder.best_epoch = 2
    result = recorder.finish(123, predictions(), predictions(), SCORES)
    relied_on = {"framework", "test/accuracy", "test/loss", "val/accuracy", "parameters", "perf/images_per_second",
                 "perf/epoch_seconds", "perf/peak_memory_gib"}
    ours = {"group", "seed", "val/loss", "test/top5", "best_epoch", "epochs", "perf/first_epoch_seconds",
            "time/train_s"}
    assert set(result) == relied_on | ours
    assert json.loads((recorder.run.folder / "result.json").read_text()) == result
    assert (result["framework"], result["parameters"], result["best_epoch"], result["epochs"]) == ("keras", 123, 2, 3)
    assert (result["test/accuracy"], result["val/accuracy"]) == (0.75, 1.0)
    # The first epoch holds compilation, so the median is that of 1 and 2 seconds.
    assert (result["perf/epoch_seconds"], result["perf/first_epoch_seconds"]) == (1.5, 8.0)
    assert result["perf/images_per_second"] == (40 + 20) / 2


def test_of_one_epoch_the_first_has_to_do(config, clock):
    recorder = start(config)
    go(recorder, clock, 0)
    assert recorder.finish(1, predictions(), predictions(), SCORES)["perf/epoch_seconds"] == 2.0


def test_predictions_are_kept(config, clock):
    recorder = start(config)
    go(recorder, clock, 0)
    recorder.finish(1, predictions(3), predictions(), SCORES)
    with np.load(recorder.run.folder / "predictions.npz") as kept:
        assert all(np.array_equal(kept[name], array) for name, array in predictions().items())
        assert all(np.array_equal(kept[f"val_{name}"], array) for name, array in predictions(3).items())


def test_scores_and_pictures_are_written_and_told_to_the_trackers(config, clock, monkeypatch):
    seen = []
    recorder = start(config)
    go(recorder, clock, 0)
    monkeypatch.setattr(recorder.trackers, "finish", lambda *given, **more: seen.append((*given, more)))
    result = recorder.finish(1, predictions(), predictions(), SCORES)
    scores = json.loads((recorder.run.folder / "scores.json").read_text())
    assert (scores["images"], scores["validation_images"], scores["macro_f1"]) == (4, 4, pytest.approx(2 / 3))
    [(told, more)] = seen
    assert told["test/macro_f1"] == scores["macro_f1"]
    assert told["test/accuracy"] == result["test/accuracy"]
    assert (scores["top5"], told["test/top5"]) == (None, 0.9)  # of four classes, and of a metric of one's own
    assert more.pop("collect_examples")() == []  # this recorder was given no images
    assert more == {"status": 0, "pictures": [recorder.run.folder / name
                                              for name in ("confusion.png", "reliability.png")]}
    assert (recorder.run.folder / "per_class.csv").is_file()


@pytest.mark.parametrize(("damage", "reason"), [
    (lambda folder, test: (folder / "confusion.png").mkdir(), "confusion.png cannot be written (Is a directory)"),
    (lambda folder, test: test.update(logits=test["logits"] * np.nan), "logits of test images are not finite")])
def test_a_run_finishes_without_scores_that_fail(config, clock, capsys, damage, reason):
    recorder, test = start(config), predictions()
    go(recorder, clock, 0)
    damage(recorder.run.folder, test)
    result = recorder.finish(1, predictions(), test, SCORES)
    assert json.loads((recorder.run.folder / "result.json").read_text()) == result
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("scores.json and its pictures are missing or not whole: ")
    assert reason in told


def test_trackers_are_closed_as_failed_where_training_raises(config, monkeypatch):
    seen = []
    recorder = start(config)
    monkeypatch.setattr(recorder.trackers, "finish", lambda result, status: seen.append((result, status)))
    with recorder:
        pass
    assert seen == []
    with pytest.raises(KeyboardInterrupt), recorder:
        raise KeyboardInterrupt
    assert seen == [(None, 1)]
