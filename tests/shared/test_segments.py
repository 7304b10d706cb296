"""Runs that go on with another number of epochs: what changes, what is said, recorded and seen by the fairness gate."""

import hashlib
import json
import re

import numpy as np
import pytest

from shared.compare.verdict import find_differences
from shared.errors import UserError
from shared.runs.folder import RunFolder
from shared.runs.records import read_run
from shared.training.recorder import Recorder
from shared.training.schedule import tabulate_rates
from tests.shared.recordings import STEPS, list_pieces, make_config, segments_of
from tests.shared.run_folders import make_run

METRICS = {"train/loss": 1.5, "train/accuracy": 0.5, "val/loss": 2.0, "val/accuracy": 0.25}


# What is said and recorded

@pytest.fixture
def config(tmp_path):
    config = make_config(tmp_path)
    config.train.epochs = 2
    return config


def open_run(config, run=None):
    run = run or RunFolder.start(config, "keras")
    run.write_record(parameters=1)
    return Recorder(run, STEPS, tabulate_rates(config, STEPS))


def train(recorder, first, last):
    with recorder:
        for epoch in range(first, last):
            recorder.begin_epoch()
            for step in range(epoch * STEPS + 1, (epoch + 1) * STEPS + 1):
                recorder.end_step(step, 1.0)
            recorder.end_training_pass()
            recorder.end_epoch((epoch + 1) * STEPS, METRICS)


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch):
    """Nothing here is about the scores that a run ends with."""
    monkeypatch.setattr(Recorder, "write_scores", lambda *_: ({}, []))


def finish(recorder):
    recorder.best_epoch = 1
    scores = {"accuracy": 1.0, "loss": 0.1}
    predictions = {"logits": np.eye(2, dtype=np.float32), "index": np.arange(2), "label": np.arange(2)}
    recorder.finish(1, predictions, predictions, [scores, scores])


def finished(config):
    recorder = open_run(config)
    train(recorder, 0, config.train.epochs)
    finish(recorder)
    return recorder.run.folder


def resumed(config, folder, epochs):
    config.train.epochs, config.resume = epochs, str(folder)
    return open_run(config)


def snapshot(folder):
    return {str(path.relative_to(folder)): (hashlib.md5(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
            for path in folder.rglob("*") if path.is_file()}


def read_segments(folder):
    return json.loads((folder / "run.json").read_text())["segments"]


def test_a_new_run_has_one_segment(config):
    folder = finished(config)
    assert read_segments(folder) == [{"from_epoch": 0, "epochs": 2, "name": "cosine", "warmup_epochs": 1.0,
                                      "initial_factor": 0.0, "step_epochs": 5, "step_factor": 0.1,
                                      "final_factor": 0.0}]


def test_more_epochs_are_said_recorded_and_not_said_again(config, capsys):
    folder = finished(config)
    recorder = resumed(config, folder, 4)
    recorder.rewind(2 * STEPS)
    [line] = capsys.readouterr().err.splitlines()
    before, after = read_segments(folder)[-1]["jump"]
    assert before < after
    assert line.startswith("train.epochs was 2 and is 4 now, so the schedule changes after epoch 2: the learning rate "
                           f"jumps from {before:.3g} to {after:.3g}, and this is another experiment than 4 epochs")
    assert line.endswith(f"use init_from={folder}")
    assert list_pieces(read_segments(folder)) == [(0, 2), (2, 4)]
    train(recorder, 2, 3)
    again = open_run(config)  # cut off, and resumed with the same number
    again.rewind(3 * STEPS)
    assert list_pieces(read_segments(folder)) == [(0, 2), (2, 4)]
    train(again, 3, 4)
    finish(again)
    assert capsys.readouterr().err == ""
    assert list_pieces(read_segments(folder)) == [(0, 2), (2, 4)]


@pytest.mark.parametrize("name", ["constant", "step"])
def test_where_nothing_jumps_nothing_alarming_is_said(config, capsys, name):
    config.schedule.name = name
    folder = finished(config)
    resumed(config, folder, 4).rewind(2 * STEPS)
    assert capsys.readouterr().err == \
        "train.epochs was 2 and is 4 now; the learning rate is the same either way\n"
    assert list_pieces(read_segments(folder)) == [(0, 2), (2, 4)]


def test_a_run_that_recorded_no_segments_had_one(config):
    folder = finished(config)
    record = json.loads((folder / "run.json").read_text())
    del record["segments"]
    (folder / "run.json").write_text(json.dumps(record))
    resumed(config, folder, 3).rewind(2 * STEPS)
    assert list_pieces(read_segments(folder)) == [(0, 2), (2, 3)]


def test_a_run_that_is_ended_early_is_no_run_of_so_many_epochs(config):
    config.train.epochs = 5
    recorder = open_run(config)
    train(recorder, 0, 3)
    recorder = resumed(config, recorder.run.folder, 3)
    finish(recorder)  # nothing was left to train
    assert list_pieces(read_segments(recorder.run.folder)) == [(0, 5), (3, 3)]
    assert "jump" in read_segments(recorder.run.folder)[-1]


def test_the_other_processes_of_a_run_record_and_say_nothing(config, capsys):
    folder = finished(config)
    config.train.epochs = 4
    other = open_run(config, RunFolder(folder, config, "keras", resumed=True, leader=False))
    before = snapshot(folder)
    other.rewind(2 * STEPS)
    assert snapshot(folder) == before
    assert capsys.readouterr().err == ""


# Fewer epochs than done

@pytest.mark.parametrize("way", ["named", "auto"])
@pytest.mark.parametrize(("done", "epochs"), [(3, 2), (3, 1), (2, 1)])
def test_nothing_is_left_and_nothing_changes(config, capsys, done, epochs, way):
    config.train.epochs = 5 if way == "auto" else done
    if way == "auto":  # which takes unfinished runs alone
        recorder = open_run(config)
        train(recorder, 0, done)
        folder = recorder.run.folder
    else:
        folder = finished(config)
    capsys.readouterr()
    before = snapshot(folder)
    config.train.epochs, config.resume = epochs, str(folder) if way == "named" else "auto"
    run = RunFolder.start(config, "keras")
    assert run.is_done
    assert run.folder == folder
    assert snapshot(folder) == before
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{folder} has had {done} epochs, so train.epochs={epochs} leaves nothing to do and changes")
    assert run.read_result() == ({} if way == "auto" else json.loads((folder / "result.json").read_text()))


def test_all_processes_of_a_run_learn_that_nothing_is_left(config):
    folder, told = finished(config), []
    config.train.epochs, config.resume = 1, str(folder)
    leader = RunFolder.start_together(config, "keras", True, lambda text: told.append(text) or text)
    other = RunFolder.start_together(config, "keras", False, lambda text: told[0])
    assert (leader.is_done, other.is_done, other.folder) == (True, True, folder.absolute())


def test_as_many_epochs_as_done_are_tested_again(config):
    folder = finished(config)
    config.resume = str(folder)
    assert not RunFolder.start(config, "keras").is_done


def test_a_damaged_line_is_named(config):
    folder = finished(config)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write("{\n")
    config.resume = str(folder)
    with pytest.raises(UserError, match=r"metrics\.jsonl: line \d+ is not valid JSON"):
        RunFolder.start(config, "keras")


# The fairness gate

def differences(*folders):
    return find_differences([read_run(folder) for folder in folders])


def in_pieces(*pieces, jump=True):
    segments = segments_of(*pieces)
    if jump:
        segments[-1]["jump"] = [0.01, 0.05]
    return {"segments": segments}


@pytest.mark.parametrize(("pieces", "words"), [
    (((0, 2), (2, 4)), "cosine to epoch 2, from epoch 2 on cosine to epoch 4"),
    (((0, 9), (2.5, 4)), "cosine to epoch 9, from epoch 2.5 on cosine to epoch 4"),
    (((0, 1), (1, 2), (2, 3)), "cosine to epoch 1, from epoch 1 on cosine to epoch 2, from epoch 2 on cosine to "
                               "epoch 3")])
def test_a_run_with_a_jump_is_another_experiment(tmp_path, pieces, words):
    folders = [make_run(tmp_path, record=in_pieces(*pieces)), make_run(tmp_path, "keras")]
    assert differences(*folders) == [f"schedule: lightning={words} keras=in one piece"]


@pytest.mark.parametrize(("ours", "theirs"), [
    (in_pieces((0, 2), (2, 4)), in_pieces((0, 2), (2, 4))),          # cut at the same place
    (in_pieces((0, 2), (2, 4), jump=False), {}),                     # the rates of one piece
    (in_pieces((0, 4), jump=False), {})])                            # of before segments were recorded
def test_runs_with_the_same_rates_are_the_same_experiment(tmp_path, ours, theirs):
    assert differences(make_run(tmp_path, record=ours), make_run(tmp_path, "keras", record=theirs)) == []


def test_a_recorded_run_is_what_the_gate_reads(config, tmp_path):
    """From the training to the verdict, without what other tests hand over by hand."""
    folder = finished(config)
    recorder = resumed(config, folder, 4)
    recorder.rewind(2 * STEPS)
    train(recorder, 2, 4)
    finish(recorder)
    whole = make_config(tmp_path / "whole")
    whole.train.epochs = 4
    [line] = [line for line in differences(folder, finished(whole)) if line.startswith("schedule: ")]
    pieces = "cosine to epoch 2, from epoch 2 on cosine to epoch 4"
    assert re.fullmatch(f"schedule: {pieces} in .+; in one piece in .+", line)
