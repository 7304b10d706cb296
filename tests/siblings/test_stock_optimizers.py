"""Optimizers that are the framework's own train under our rules, and what they cannot do is told before training."""

from unittest import mock

import numpy as np
import pytest

from shared.machine.interpreters import is_installed
from tests.conftest import Sibling, train
from tests.trainings import assert_same_training, rows

UNDER_ALL_RULES = ("train.epochs=2", "train.grad_clip=0.5", "train.accumulate=2", "train.ema_decay=0.9",
                   "optimizer.backbone_lr_factor=0.5", "optimizer.lr=0.001", "train.checkpoint_every_steps=4")


def stock_training(sibling, name, folder, cut, *words):
    """A training with a class of the framework in the sibling's table; interrupted after step `cut`, if it is not 0."""
    import importlib

    from shared.training.recorder import Recorder

    kinds = importlib.import_module({"lightning": "torch.optim", "keras": "keras.optimizers"}[sibling])
    table = importlib.import_module(f"{sibling}_project.optim").OPTIMIZERS
    original = Recorder.end_step

    def end_step(recorder, step, *rest):
        original(recorder, step, *rest)
        if step == cut:
            raise RuntimeError("cut")

    with mock.patch.dict(table, {"sgd": (getattr(kinds, name), lambda config: {})}), \
            mock.patch.object(Recorder, "end_step", end_step):
        return train(sibling, folder, *words)


@pytest.mark.parametrize("name", ["RMSprop", "Lion"])
def test_a_stock_optimizer_trains_under_all_rules(sibling, tmp_path, name):
    if (sibling.name, name) == ("lightning", "Lion"):
        pytest.skip("PyTorch has no Lion")
    done = sibling.call(stock_training, name, str(tmp_path), 0, *UNDER_ALL_RULES)
    assert done["error"] is None, done["error"]
    losses = [row["train/loss"] for row in rows(done["run"]) if "train/loss" in row]
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_a_stock_optimizer_resumes_within_an_epoch(sibling, tmp_path):
    """The one that keeps most: moments, and NAdam's product of momenta, to which Keras gives no name."""
    name = {"lightning": "NAdam", "keras": "Nadam"}[sibling.name]
    whole = sibling.call(stock_training, name, str(tmp_path / "whole"), 0, *UNDER_ALL_RULES)
    assert whole["error"] is None, whole["error"]
    cut = sibling.call(stock_training, name, str(tmp_path / "cut"), 9, *UNDER_ALL_RULES)
    assert cut["error"] == "RuntimeError('cut')"
    resumed = sibling.call(stock_training, name, str(tmp_path / "cut"), 0, "resume=auto", *UNDER_ALL_RULES)
    assert resumed["error"] is None, resumed["error"]
    assert resumed["run"] == cut["run"]
    assert_same_training(whole["run"], resumed["run"])


def on_two_devices(_):
    """How far each class of Keras is on two devices, with its batch in two parts, from itself on one."""
    import inspect

    import keras
    import tensorflow as tf

    from keras_project.training_rules import with_training_rules

    keras.config.set_floatx("float64")
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(shape) for shape in ((6, 4), (4,))]
    parts = [rng.standard_normal((4, 2, *weight.shape)) for weight in weights]  # of two devices

    def descend(kind, devices):
        strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(devices)]) if devices > 1 \
            else tf.distribute.get_strategy()
        with strategy.scope():
            variables = [keras.Variable(weight, dtype="float64", name="kernel") for weight in weights]
            optimizer = with_training_rules(kind)(
                learning_rate=0.1, weight_decay=0.1, gradient_accumulation_steps=2, max_norm=1.5, backbone_factor=0.5)
            optimizer.build(variables)

        def apply(step):
            device = tf.distribute.get_replica_context().replica_id_in_sync_group
            both = [tf.gather(tf.constant(part), step) for part in parts]
            optimizer.apply([pair[device] if devices > 1 else tf.reduce_sum(pair, 0) for pair in both], variables)
        run = tf.function(lambda step: strategy.run(apply, args=(step,))) if devices > 1 else apply
        for step in range(4):
            run(tf.constant(step))
        return np.concatenate([keras.ops.convert_to_numpy(variable).ravel() for variable in variables])

    wrappers = (keras.optimizers.Optimizer, keras.optimizers.LossScaleOptimizer, keras.optimizers.MultiOptimizer)
    kinds = {kind for _, kind in inspect.getmembers(keras.optimizers, inspect.isclass)
             if issubclass(kind, keras.optimizers.Optimizer) and kind not in wrappers}
    start = np.concatenate([weight.ravel() for weight in weights])
    found = {}
    for kind in kinds:
        one, two = descend(kind, 1), descend(kind, 2)
        found[kind.__name__] = float(np.abs(one - two).max() / np.abs(one - start).max())
    return found


@pytest.mark.slow
def test_every_class_of_keras_accumulates_on_several_devices():
    if not is_installed("keras"):
        pytest.skip("the keras sibling is not installed")
    fresh = Sibling("keras")  # TensorFlow takes the number of devices once in a process
    found = fresh.call(on_two_devices)
    fresh.pool.shutdown()
    assert len(found) >= 14
    assert {name: figure for name, figure in found.items() if not figure < 1e-12} == {}


def without_rules(_, options, folder, *words):
    """A training with Keras' Lion as it is, which a user has put in the place of `build_optimizer`'s."""
    import keras

    from keras_project import classifier

    with mock.patch.object(classifier, "build_optimizer", return_value=keras.optimizers.Lion(1e-4, **options)):
        return train("keras", folder, *words)


def test_an_optimizer_without_our_rules_trains(sibling, tmp_path):
    if sibling.name != "keras":
        pytest.skip("PyTorch's optimizers have none of our rules")
    done = sibling.call(without_rules, {}, str(tmp_path), "train.ema_decay=0.9")
    assert done["error"] is None, done["error"]
    losses = [row["train/loss"] for row in rows(done["run"]) if "train/loss" in row]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(("options", "word", "says"), [
    ({}, "train.grad_clip=1", "train.grad_clip=1 is not for a Lion without the training rules"),
    ({}, "optimizer.backbone_lr_factor=0.1", "optimizer.backbone_lr_factor=0.1 is not for a Lion without"),
    ({}, "train.accumulate=2", "train.accumulate=2, but the optimizer's gradient_accumulation_steps is None"),
    ({"use_ema": True}, "seed=1", "leave use_ema out and set train.ema_decay"),
])
def test_what_such_an_optimizer_cannot_do_is_told_before_training(sibling, tmp_path, options, word, says):
    if sibling.name != "keras":
        pytest.skip("PyTorch's optimizers have none of our rules")
    done = sibling.call(without_rules, options, str(tmp_path), word)
    assert done["kind"] == "UserError"
    assert says in done["error"]
    assert not (done["run"] / "metrics.jsonl").exists()


def refusal(sibling, name, options, words):
    """What the sibling says against a class of the framework with `options` in its table."""
    import importlib

    from shared.config import parse_config
    from shared.errors import UserError

    optim = importlib.import_module(f"{sibling}_project.optim")
    kinds = importlib.import_module({"lightning": "torch.optim", "keras": "keras.optimizers"}[sibling])
    config = parse_config(list(words), "", "")
    with mock.patch.dict(optim.OPTIMIZERS, {"sgd": (getattr(kinds, name), lambda config: options)}):
        try:
            if sibling == "lightning":
                from torch import nn

                optimizer = optim.build_optimizer(config, nn.ModuleDict({"fc": nn.Linear(2, 2)}), {"fc.weight"})
                if name == "Adagrad":  # as a user may have put there, without groups
                    optimizer = kinds.Adagrad(nn.Linear(2, 2).parameters())
            else:
                optimizer = optim.build_optimizer(config, 2)
            optim.refuse_lost_settings(config, optimizer)
        except UserError as error:
            return str(error)
    return None


@pytest.mark.parametrize(("name", "options", "words", "says"), [
    ("Adam", {"fused": True}, ("train.grad_clip=1", "hardware.precision=fp16"),
     "train.grad_clip=1 is not for a fused Adam under hardware.precision=fp16"),
    ("Adam", {"fused": True}, ("train.grad_clip=1",), None),
    ("LBFGS", {}, (), "torch's LBFGS refuses its arguments (LBFGS doesn't support per-parameter options"),
    ("Muon", {}, (), "torch's Muon refuses its arguments (Muon only supports 2D parameters"),
    ("Rprop", {}, (), "optimizer.weight_decay=0.0005 is not for Rprop, which has no weight decay"),
    ("Rprop", {}, ("optimizer.weight_decay=0",), None),
    ("Adagrad", {}, ("optimizer.backbone_lr_factor=0.1",), "all parameters of this Adagrad have one learning rate"),
])
def test_lightning_tells_what_an_optimizer_of_pytorch_cannot_do(sibling, name, options, words, says):
    if sibling.name != "lightning":
        pytest.skip("Keras' have another test")
    said = sibling.call(refusal, name, options, words)
    assert said is says or says in said


@pytest.mark.parametrize(("name", "options", "words", "says"), [
    ("Adam", {"clipnorm": 1.0}, ("train.grad_clip=1",), "train.grad_clip=1 and clipnorm of the optimizer both clip"),
    ("Adam", {"global_clipnorm": 1.0}, (), None),
    ("SGD", {"dampening": 0.1}, (), "keras' SGD refuses its arguments (Argument(s) not recognized"),
    ("RMSprop", {"use_ema": True}, (), "leave use_ema out and set train.ema_decay"),
])
def test_keras_tells_what_an_optimizer_of_its_own_cannot_do(sibling, name, options, words, says):
    if sibling.name != "keras":
        pytest.skip("PyTorch's have another test")
    said = sibling.call(refusal, name, options, words)
    assert said is says or says in said
