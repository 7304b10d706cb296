"""Loss, metrics, monitor and callbacks in trainings of both siblings: what is recorded, what a user adds, and what is
refused."""

import importlib
import json
from functools import partial

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from tests.conftest import Sibling, train


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


# In a training

@pytest.fixture(scope="module")
def trained(sibling, tmp_path_factory):
    done = sibling.call(train, str(tmp_path_factory.mktemp("seams")), "train.loss=focal",
                        "train.class_weights=balanced", "dataset.balance=oversample",
                        "train.metrics=[top5,macro_f1]", "train.monitor=val/macro_f1",
                        "train.early_stopping_patience=5")
    assert done["error"] is None, done["error"]
    return done


def test_what_is_computed_reaches_rows_line_result_and_best_epoch(trained):
    names = [f"{split}/{name}" for split in ("train", "val") for name in ("loss", "accuracy", "macro_f1", "top5")]
    epochs = [row for row in rows(trained["run"]) if "val/loss" in row]
    assert all(list(row)[3:11] == names for row in epochs)
    lines = [line for line in trained["out"].splitlines() if line.startswith("epoch")]
    assert all(name in line for line in lines for name in names)
    result = trained["result"]
    assert {f"test/{name}" for name in ("loss", "accuracy", "top5", "macro_f1")} <= set(result)
    best = max(epochs, key=lambda row: row["val/macro_f1"])
    assert result["best_epoch"] == round(best["epoch"])
    assert result["val/macro_f1"] == pytest.approx(best["val/macro_f1"], abs=1e-6)
    assert result["val/loss"] == pytest.approx(best["val/loss"], abs=1e-5)


def test_scores_of_predictions_are_scikit_learns(trained):
    from sklearn.metrics import accuracy_score, f1_score, top_k_accuracy_score

    with np.load(trained["run"] / "predictions.npz") as file:
        logits, labels = file["logits"], file["label"]
    answers, result = logits.argmax(axis=1), trained["result"]
    assert result["test/accuracy"] == accuracy_score(labels, answers)
    assert result["test/top5"] == pytest.approx(top_k_accuracy_score(labels, logits, k=5, labels=np.arange(10)))
    assert result["test/macro_f1"] == pytest.approx(f1_score(labels, answers, average="macro"), abs=1e-6)
    log_p = log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels]
    assert result["test/loss"] == pytest.approx(np.mean((1 - np.exp(log_p)) ** 2 * -log_p), rel=1e-6)


# What a user adds

def train_with(sibling, folder, words, change):
    """Train with the sibling's modules changed as a user would change their source."""
    from unittest import mock

    with mock.patch.multiple(importlib.import_module(f"{sibling}_project.{change[0]}"), **change[1](sibling)):
        return train(sibling, folder, *words)


def add_metric(name, sibling):
    """One more line in `build_metrics`."""
    original = importlib.import_module(f"{sibling}_project.classifier").build_metrics

    def build_metrics(config, classes):
        metrics = original(config, classes)
        if sibling == "lightning":
            from torchmetrics.classification import MulticlassAccuracy

            metrics[name] = MulticlassAccuracy(classes, top_k=3, average="micro")
        else:
            import keras

            metrics.append(keras.metrics.TopKCategoricalAccuracy(3, name=name))
        return metrics
    return {"build_metrics": build_metrics}


def test_a_metric_of_ones_own_is_logged_everywhere_and_can_be_monitored(sibling, tmp_path):
    done = sibling.call(train_with, str(tmp_path), ("train.monitor=val/top3", "train.monitor_mode=max"),
                        ("classifier", partial(add_metric, "top3")))
    assert done["error"] is None, done["error"]
    assert {"train/top3", "val/top3"} <= set(rows(done["run"])[-1])
    assert "val/top3" in done["out"]
    assert 0 <= done["result"]["val/top3"] <= 1
    assert "test/top3" in done["result"]


@pytest.mark.parametrize(("name", "hint"), [
    ("accuracy", "uses the name 'accuracy', and two metrics have it"),
    ("loss", "uses the name 'loss', and the loss has it"),
    ("val/top3", "a name has no '/'")])
def test_a_metric_with_a_wrong_name_is_refused(sibling, tmp_path, name, hint):
    if sibling.name == "lightning" and name == "accuracy":
        pytest.skip("names in a dictionary cannot be repeated")
    done = sibling.call(train_with, str(tmp_path), (), ("classifier", partial(add_metric, name)))
    assert hint in done["error"]
    assert done["kind"] == "UserError"
    assert not rows_of(done)


def rows_of(done):
    file = done["run"] and done["run"] / "metrics.jsonl"
    return file.read_text() if file and file.exists() else ""


def add_loss(kind, sibling):
    """Another `build_loss`: the mean squared error of the probabilities (Brier's score), or one that cannot work."""
    def build_loss(config, class_weights=None, training=True):
        if sibling == "lightning":
            import torch

            class Loss(torch.nn.Module):
                def forward(self, logits, target):
                    if kind == "boxes":
                        return (logits - target["boxes"]).square().mean()
                    values = (logits.softmax(dim=1) - target).square().sum(dim=1)
                    return values if kind == "no scalar" else values.mean()
            return Loss()
        import keras
        from keras import ops

        class Loss(keras.losses.Loss):
            def call(self, y_true, y_pred):
                if kind == "boxes":
                    return ops.mean(ops.square(y_pred - y_true["boxes"]), axis=1)
                values = ops.square(ops.softmax(y_pred) - y_true)
                return values if kind == "no scalar" else ops.sum(values, axis=1)
        return Loss()
    return {"build_loss": build_loss}


def test_a_loss_of_ones_own_trains_and_is_scored(sibling, tmp_path):
    done = sibling.call(train_with, str(tmp_path), (), ("classifier", partial(add_loss, "brier")))
    assert done["error"] is None, done["error"]
    with np.load(done["run"] / "predictions.npz") as file:
        wrong = softmax(file["logits"].astype(np.float64), axis=1) - np.eye(10)[file["label"]]
    assert done["result"]["test/loss"] == pytest.approx(np.square(wrong).sum(axis=1).mean(), rel=1e-6)
    epochs = [row for row in rows(done["run"]) if "val/loss" in row]
    assert all(row["train/loss"] < 2 and row["val/loss"] < 2 for row in epochs)


@pytest.mark.parametrize("kind", ["boxes", "no scalar"])
def test_a_loss_that_cannot_be_computed_is_refused(sibling, tmp_path, kind):
    done = sibling.call(train_with, str(tmp_path), (), ("classifier", partial(add_loss, kind)))
    assert done["kind"] == "UserError"
    assert "build_loss in" in done["error"]
    assert "does not work on logits (2, 10)" in done["error"]
    assert "\n" not in done["error"]
    assert not rows_of(done)


def log_more(sibling):
    """In Lightning a LightningModule that logs more in its validation step; in Keras a callback that adds to `logs`."""
    if sibling == "keras":
        import keras

        callbacks = importlib.import_module("keras_project.callbacks")
        built = callbacks.build_callbacks

        def build_callbacks(*arguments):
            def add(epoch, logs):
                logs["val_margin"] = 0.25
            return [keras.callbacks.LambdaCallback(on_epoch_end=add), *built(*arguments)]
        return {"build_callbacks": build_callbacks}
    callbacks = importlib.import_module("lightning_project.callbacks")
    built = callbacks.build_callbacks
    from lightning.pytorch.callbacks import Callback

    class Margin(Callback):
        def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
            pl_module.log("val/margin", 0.25)
    return {"build_callbacks": lambda *arguments: [Margin(), *built(*arguments)]}


def test_what_a_hook_logs_is_recorded_and_can_be_monitored(sibling, tmp_path):
    done = sibling.call(train_with, str(tmp_path), ("train.monitor=val/margin", "train.monitor_mode=min"),
                        ("callbacks", log_more))
    assert done["error"] is None, done["error"]
    epochs = [row for row in rows(done["run"]) if "val/loss" in row]
    assert [row["val/margin"] for row in epochs] == [0.25, 0.25]
    assert done["result"]["best_epoch"] == 1


def test_a_monitor_that_nobody_logs_is_named_with_what_there_is(sibling, tmp_path):
    done = sibling.call(train, str(tmp_path), "train.monitor=val/top7", "train.monitor_mode=max",
                        "train.early_stopping_patience=3")
    assert done["kind"] == "UserError"
    assert done["error"].startswith("train.monitor=val/top7 is logged by nobody; there are ")
    assert "val/accuracy" in done["error"]
    assert "val/loss" not in rows_of(done)


def test_the_sanity_check_for_an_unknown_monitor_moves_nothing(sibling, tmp_path):
    """Lightning validates one batch beforehand where a monitor is not known; the numbers stay what they are."""
    plain = sibling.call(train, str(tmp_path / "a"))
    more = sibling.call(train_with, str(tmp_path / "b"), ("train.monitor=val/margin", "train.monitor_mode=min"),
                        ("callbacks", log_more))
    for row, other in zip(rows(plain["run"]), rows(more["run"]), strict=True):
        for name, value in row.items():
            assert name.startswith(("perf/", "time/")) or other[name] == value, name


# Stock callbacks

def add_callbacks(sibling):
    callbacks = importlib.import_module(f"{sibling}_project.callbacks")
    built = callbacks.build_callbacks
    if sibling == "lightning":
        from lightning.pytorch.callbacks import LearningRateMonitor, Timer

        return {"build_callbacks": lambda *arguments: [LearningRateMonitor("step"), Timer(), *built(*arguments)]}
    import keras

    def build_callbacks(*arguments):
        epochs, batches = [], []
        count = keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: epochs.append(epoch),
            on_train_batch_end=lambda batch, logs: batches.append(batch),
            on_train_end=lambda logs: print("seen", len(batches), epochs))
        return [keras.callbacks.TerminateOnNaN(), count, *built(*arguments)]
    return {"build_callbacks": build_callbacks}


def test_stock_callbacks_run_at_their_usual_hooks(sibling: Sibling, tmp_path):
    done = sibling.call(train_with, str(tmp_path), (), ("callbacks", add_callbacks))
    assert done["error"] is None, done["error"]
    if sibling.name == "keras":
        assert "seen 12 [0, 1]" in done["out"]
        return
    monitored = [row for row in rows(done["run"]) if any(name.startswith("lr-") for name in row)
                 and "val/loss" not in row]
    assert len(monitored) == 12
    steps = {row["samples"]: row["lr"] for row in rows(done["run"]) if "train/loss_step" in row}
    # What the monitor sees before step n is the rate of step n.
    rates = [next(value for name, value in row.items() if name.startswith("lr-")) for row in monitored]
    assert rates == pytest.approx(list(steps.values()))
