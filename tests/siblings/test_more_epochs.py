"""Runs that go on with another number of epochs, in both siblings."""

import hashlib
import json

import pytest

from tests.conftest import train


def read(run, name):
    return json.loads((run / name).read_text())


def rows(run):
    """metrics.jsonl without what a clock or a memory counter says."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if not name.startswith(("perf/", "time/"))} for row in found]


def snapshot(folder):
    return {str(path.relative_to(folder)): (hashlib.md5(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
            for path in folder.rglob("*") if path.is_file()}


def cut(sibling, folder, step, *words):
    """A training that Ctrl-C ends after a step, with a checkpoint of each."""
    from unittest import mock

    from shared.training.recorder import Recorder
    original = Recorder.end_step

    def end_step(self, now, *rest):
        original(self, now, *rest)
        if now == step:
            raise KeyboardInterrupt
    with mock.patch.object(Recorder, "end_step", end_step):
        return train(sibling, folder, "train.checkpoint_every_steps=1", *words)


def test_a_cosine_jumps_and_fewer_epochs_change_nothing(sibling, tmp_path):
    first = sibling.call(train, str(tmp_path), "train.epochs=2")
    run = first["run"]
    longer = sibling.call(train, str(tmp_path), "train.epochs=3", f"resume={run}")
    assert longer["error"] is None, longer["error"]
    assert longer["result"]["epochs"] == 3
    [told] = [line for line in longer["err"].splitlines() if "train.epochs was 2 and is 3 now" in line]
    one, two = read(run, "run.json")["segments"]
    assert (one["from_epoch"], one["epochs"], two["from_epoch"], two["epochs"]) == (0, 2, 2, 3)
    rates = [row["lr"] for row in rows(run) if "lr" in row and "val/loss" not in row]
    steps = read(run, "run.json")["steps_per_epoch"]
    assert two["jump"] == rates[2 * steps - 1:2 * steps + 1]
    assert f"jumps from {rates[2 * steps - 1]:.3g} to {rates[2 * steps]:.3g}" in told
    before = snapshot(run)
    fewer = sibling.call(train, str(tmp_path), "train.epochs=1", f"resume={run}")
    assert fewer["error"] is None
    assert fewer["result"] == longer["result"]
    assert "leaves nothing to do" in fewer["err"]
    assert snapshot(run) == before


def test_a_constant_rate_goes_on_as_if_it_had_been_planned_so(sibling, tmp_path):
    words = ["schedule.name=constant"]
    whole = sibling.call(train, str(tmp_path / "whole"), "train.epochs=3", *words)
    first = sibling.call(train, str(tmp_path / "cut"), "train.epochs=1", *words)
    longer = sibling.call(train, str(tmp_path / "cut"), "train.epochs=3", f"resume={first['run']}", *words)
    assert longer["error"] is None, longer["error"]
    assert "train.epochs was 1 and is 3 now; the learning rate is the same either way" in longer["err"]
    assert len(rows(longer["run"])) == len(rows(whole["run"]))
    for row, expected in zip(rows(longer["run"]), rows(whole["run"]), strict=True):
        assert row == pytest.approx(expected, rel=1e-6)


def test_a_run_that_was_cut_within_an_epoch_can_be_ended_at_the_one_before(sibling, tmp_path):
    """Its checkpoint has more steps than it is to have now."""
    steps = read(sibling.call(train, str(tmp_path / "whole"), "train.epochs=1")["run"], "run.json")["steps_per_epoch"]
    stopped = sibling.call(cut, str(tmp_path / "cut"), steps + 3, "train.epochs=4")
    assert stopped["result"] is None
    ended = sibling.call(train, str(tmp_path / "cut"), "train.epochs=1", "resume=auto")
    assert ended["error"] is None, ended["error"]
    assert ended["run"] == stopped["run"]
    assert ended["result"]["epochs"] == ended["result"]["best_epoch"] == 1
    assert [segment["epochs"] for segment in read(ended["run"], "run.json")["segments"]] == [4, 1]


def test_a_run_is_free_after_its_training_and_held_within_it(sibling, tmp_path):
    """In one process, as in a notebook."""
    for number in range(2):
        run = sibling.call(train, str(tmp_path), "train.epochs=1")["run"]
        assert not (run / ".holder.json").exists(), number
    assert len(list(tmp_path.glob("*/*"))) == 2
    stopped = sibling.call(cut, str(tmp_path), 1, "train.epochs=1")
    assert not (stopped["run"] / ".holder.json").exists()
    assert sibling.call(look, str(tmp_path), "train.epochs=1")["held"] == [True]


def look(sibling, folder, *words):
    """A training, and whether its run folder was held at its last step."""
    from unittest import mock

    from shared.training.recorder import Recorder
    original, seen = Recorder.end_epoch, []

    def end_epoch(self, *rest):
        original(self, *rest)
        seen.append((self.run.folder / ".holder.json").exists())
    with mock.patch.object(Recorder, "end_epoch", end_epoch):
        return train(sibling, folder, *words) | {"held": seen}
