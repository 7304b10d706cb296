"""Whole trainings in each sibling: what they leave behind, how they go on, how they stop."""

import contextlib
import importlib
import io
import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from shared.scores import score_logits
from shared.weights.file import read_metadata
from tests.conftest import Sibling, train

train_whole = partial(train, whole_model=True)


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def epochs(run: Path) -> list[dict]:
    return [row for row in rows(run) if "val/loss" in row]


@pytest.fixture(scope="module")
def trained(sibling, tmp_path_factory):
    """A finished run of two epochs."""
    done = sibling.call(train_whole, str(tmp_path_factory.mktemp("trained")))
    assert done["error"] is None, done["error"]
    return done


def test_run_folder_explains_itself(trained, sibling):
    run = trained["run"]
    kept = {path.name for path in run.iterdir()}
    assert kept == {".lock", "config.yaml", "run.json", "metrics.jsonl", "best.safetensors", "checkpoints",
                    "predictions.npz", "result.json", "scores.json", "per_class.csv", "confusion.png",
                    "reliability.png"}
    assert not list(run.rglob("*.unfinished"))
    facts = json.loads((run / "run.json").read_text())
    assert facts["framework"] == sibling.name
    assert facts["sizes"] == {"train": 198, "val": 22, "test": 60}
    assert facts["steps_per_epoch"] == 6
    assert facts["parameters"] == 11_172_810  # torchvision's 11,689,512 less 512,000 + 1,000 + 9,408, plus 5,130 + 576
    assert set(facts["fingerprints"]) == {"data", "split", "test", "order", "initial_weights"}
    assert json.loads(read_metadata(run / "best.safetensors")["classes"]) == list("0123456789")


def test_result_is_what_the_predictions_say(trained):
    run, result = trained["run"], trained["result"]
    assert json.loads((run / "result.json").read_text()) == result
    with np.load(run / "predictions.npz") as predictions:
        assert predictions["index"].tolist() == list(range(60))
        expected = score_logits(predictions["logits"], predictions["label"])
    assert result["test/accuracy"] == expected["accuracy"]
    assert result["test/loss"] == expected["loss"]
    for name in ("framework", "val/accuracy", "parameters", "perf/images_per_second", "perf/epoch_seconds",
                 "perf/peak_memory_gib"):
        assert name in result


def evaluated(sibling: str, run: str) -> dict:
    from shared.config import load_config
    module = importlib.import_module(f"{sibling}_project.evaluate")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return module.evaluate(load_config(Path(run) / "config.yaml"), run)


def test_evaluating_a_run_gives_the_scores_of_its_training(trained, sibling, tmp_path):
    run = shutil.copytree(trained["run"], tmp_path / "run")
    sibling.call(evaluated, str(run))
    own, found = (json.loads((run / f"scores{ending}.json").read_text()) for ending in ("", f"_{sibling.name}"))
    assert own["validation_images"] == 22
    assert found == {name: pytest.approx(value, rel=1e-5) if isinstance(value, float) else value
                     for name, value in own.items() if name != "bins"} | {"bins": found["bins"]}
    for name in ("per_class{}.csv", "confusion{}.png", "reliability{}.png"):
        assert (run / name.format(f"_{sibling.name}")).stat().st_size > 300


def test_rows_lie_on_shared_axes(trained):
    found = rows(trained["run"])
    assert [row["samples"] for row in found if "train/loss_step" in row] == [32 * step for step in range(1, 13)]
    assert [(row["samples"], row["epoch"]) for row in found if "val/loss" in row] == [(192, 1.0), (384, 2.0)]
    times = [row["time/train_s"] for row in found]
    assert times == sorted(times)
    for row in epochs(trained["run"]):
        assert set(row) == {"samples", "epoch", "time/train_s", "train/loss", "train/accuracy", "val/loss",
                            "val/accuracy", "lr", "perf/images_per_second", "perf/epoch_seconds",
                            "perf/peak_memory_gib"}


def test_learning_rate_is_the_tables(trained):
    # Warm-up over the 6 steps of the first epoch, then cosine from 1 to 0 over the 6 of the second.
    cosine = [0.5 * (1 + np.cos(np.pi * step / 6)) for step in range(6)]
    expected = [0.01 * factor for factor in [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1.0, *cosine]]
    assert [row["lr"] for row in rows(trained["run"]) if "train/loss_step" in row] == pytest.approx(expected, rel=1e-12)


def test_epoch_loss_is_the_mean_of_its_steps(trained):
    steps = [row["train/loss_step"] for row in rows(trained["run"]) if "train/loss_step" in row]
    assert [row["train/loss"] for row in epochs(trained["run"])] == pytest.approx(
        [np.mean(steps[:6]), np.mean(steps[6:])], rel=1e-5)


def test_prints_what_a_reader_would_ask(trained):
    assert "198 training, 22 validation and 60 test images of 8x8x1 in 10 classes; 6 steps of 32" in trained["err"]
    assert "11,172,810 parameters, 11,163,200 of them decay" in trained["err"]
    assert trained["out"].count("epoch ") == 2 + 1  # two lines, and the best epoch in the last
    assert str(trained["run"]) in trained["out"]
    assert "\r" not in trained["err"] + trained["out"]  # no progress bar where nobody looks at a terminal


def on_a_terminal(sibling: str, folder: str) -> dict:
    """A training as in `train`, and in `screen` what a terminal gets that shows both streams."""
    screen = io.StringIO()

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> int:
            screen.write(text)
            return super().write(text)
    return train(sibling, folder, stream=Terminal) | {"screen": screen.getvalue()}


def test_on_a_terminal_progress_is_shown_beside_the_output(sibling, tmp_path):
    done = sibling.call(on_a_terminal, str(tmp_path))
    assert done["error"] is None, done["error"]
    assert "epoch 2" in done["err"]
    assert "/6 " in done["err"]
    assert [line.split()[0] for line in done["out"].splitlines()] == ["epoch", "epoch", "test/accuracy", "run"]
    # What follows the last carriage return of a line stays to be seen.
    seen = [line.rpartition("\r")[2].rstrip() for line in done["screen"].splitlines()]
    assert set(done["out"].splitlines()) <= set(seen)


def interrupted(sibling: str, folder: str, *words: str) -> dict:
    """A training that is interrupted when it has three of four epochs behind it, before the third is checkpointed."""
    from unittest import mock

    from shared.training.recorder import Recorder
    original = Recorder.end_epoch

    def end_epoch(self, step, metrics):
        original(self, step, metrics)
        if step == 3 * self.steps:
            raise KeyboardInterrupt
    with mock.patch.object(Recorder, "end_epoch", end_epoch):
        return train(sibling, folder, "train.epochs=4", *words)


def test_resume_goes_on_where_the_checkpoint_is(sibling, tmp_path):
    words = ["train.early_stopping_patience=3", "optimizer.name=adamw"]
    whole = sibling.call(train, str(tmp_path / "whole"), "train.epochs=4", *words)
    stopped = sibling.call(interrupted, str(tmp_path / "resumed"), *words)
    assert stopped["result"] is None
    assert len(epochs(stopped["run"])) == 3
    resumed = sibling.call(train, str(tmp_path / "resumed"), "train.epochs=4", "resume=auto", *words)
    assert resumed["error"] is None, resumed["error"]
    assert resumed["run"] == stopped["run"]
    assert [row["epoch"] for row in epochs(resumed["run"])] == [1, 2, 3, 4]
    assert [row["samples"] for row in rows(resumed["run"])] == [row["samples"] for row in rows(whole["run"])]
    for again, once in zip(epochs(resumed["run"]), epochs(whole["run"]), strict=True):
        for name in ("train/loss", "val/loss", "lr"):
            assert again[name] == pytest.approx(once[name], rel=1e-3), (name, again["epoch"])
    assert resumed["result"]["best_epoch"] == whole["result"]["best_epoch"]
    # Nothing is unfinished now, so that auto starts anew.
    anew = sibling.call(train, str(tmp_path / "resumed"), "train.epochs=1", "resume=auto")
    assert anew["run"] != resumed["run"]


def test_resume_refuses_what_it_cannot_go_on_with(trained, sibling, tmp_path):
    nothing = sibling.call(train, str(tmp_path), f"resume={tmp_path}")
    assert "no checkpoint" in nothing["error"]
    assert nothing["run"] is None
    copy = tmp_path / "quickstart" / trained["run"].name
    shutil.copytree(trained["run"], copy)
    last = next((copy / "checkpoints").glob("last.*"))
    last.write_bytes(last.read_bytes()[:1000])
    damaged = sibling.call(train_whole, str(tmp_path), f"resume={copy}")
    assert damaged["kind"] == "UserError", damaged["error"]
    assert last.name in damaged["error"]
    assert "delete it to go on from previous." in damaged["error"]
    last.unlink()
    assert sibling.call(train_whole, str(tmp_path), f"resume={copy}", "train.epochs=2")["error"] is None


def test_early_stopping_counts_epochs_without_a_better_one(sibling, tmp_path):
    done = sibling.call(train, str(tmp_path), "train.epochs=9", "train.early_stopping_patience=2", "optimizer.lr=1e-12",
                        "schedule.name=constant", "schedule.warmup_epochs=0", "train.monitor=val/accuracy")
    # With a learning rate of nothing only BatchNorm's statistics move; whatever epoch was best, two more were run.
    best = done["result"]["best_epoch"]
    values = [row["val/accuracy"] for row in epochs(done["run"])]
    assert best == 1 + int(np.argmax(values))
    assert len(values) == min(9, best + 2)


def test_best_weights_are_tested_not_the_last(trained):
    values = [row["val/accuracy"] for row in epochs(trained["run"])]
    assert trained["result"]["best_epoch"] == 1 + int(np.argmax(values))
    assert trained["result"]["val/accuracy"] == pytest.approx(max(values), abs=1e-6)


def test_non_finite_loss_stops_and_names_the_step(sibling, tmp_path):
    done = sibling.call(train, str(tmp_path), "optimizer.lr=90", "optimizer.momentum=0.99", "schedule.name=constant",
                        "schedule.warmup_epochs=0", "optimizer.weight_decay=10", "train.epochs=30")
    assert done["kind"] == "UserError"
    assert done["error"].startswith(("the loss is ", "the gradient's norm is "))
    step = int(done["error"].split("at step ")[1].split()[0])
    listed = json.loads((done["run"] / "nonfinite.json").read_text())
    assert listed["step"] == step
    assert len(listed["images"]) == 32
    assert rows(done["run"])[-1]["samples"] <= 32 * step
    assert not (done["run"] / "result.json").exists()


@pytest.mark.parametrize("words", [
    ("optimizer.name=adam", "train.label_smoothing=0.1", "train.grad_clip=0.5"),
    ("augment.mixup_alpha=0.4", "augment.cutmix_alpha=1.0", "augment.flip=true", "augment.crop=resized"),
    ("hardware.precision=bf16", "dataset.image_size=12", "model.stem=large", "augment.policy=randaugment",
     "debug.limit_batches=1", "debug.detect_anomaly=true", "tracking.tensorboard=true"),
    ("configs/debug/one_batch.yaml",),
])
def test_every_switch_trains(sibling, tmp_path, words):
    done = sibling.call(train, str(tmp_path), "train.epochs=1", *words)
    assert done["error"] is None, done["error"]
    assert np.isfinite(done["result"]["test/loss"])


def test_a_profile_is_left_behind(sibling, tmp_path):
    done = sibling.call(train, str(tmp_path), "configs/debug/profile.yaml", "debug.limit_batches=2")
    assert done["error"] is None, done["error"]
    (trace,) = done["run"].glob({"lightning": "profile.json", "keras": "profile/**/*.xplane.pb"}[sibling.name])
    assert trace.stat().st_size > 10_000


@pytest.mark.slow
def test_deterministic_runs_end_alike(sibling, tmp_path):
    alone = Sibling(sibling.name)  # TensorFlow has no way back
    runs = [alone.call(train, str(tmp_path / name), "configs/debug/deterministic.yaml", "train.epochs=1",
                       "augment.crop=resized") for name in ("one", "two")]
    alone.pool.shutdown()
    assert [done["error"] for done in runs] == [None, None]
    one, two = (load_file(done["run"] / "best.safetensors") for done in runs)
    assert [name for name in one if one[name].tobytes() != two[name].tobytes()] == []


@pytest.mark.slow
def test_overfit_ends_near_certainty(sibling, tmp_path):
    done = sibling.call(train_whole, str(tmp_path), "configs/debug/overfit.yaml", "train.epochs=8",
                        "dataset.limit_train=80", "schedule.warmup_epochs=0", "optimizer.lr=0.001",
                        "train.batch_size=16")
    losses = [row["train/loss"] for row in epochs(done["run"])]
    assert losses[-1] < 0.2 < losses[0]


def test_init_from_starts_with_the_given_weights(trained, sibling, tmp_path):
    done = sibling.call(train_whole, str(tmp_path), f"init_from={trained['run']}", "optimizer.lr=1e-30",
                        "train.epochs=1", "schedule.warmup_epochs=0", "optimizer.weight_decay=0")
    start, end = (load_file(run / "best.safetensors") for run in (trained["run"], done["run"]))
    for name, tensor in start.items():
        if not name.endswith(("running_mean", "running_var")):
            np.testing.assert_array_equal(tensor, end[name], err_msg=name)
