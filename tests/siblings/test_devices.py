"""Killed and resumed a training ends as if nothing had been, on two devices as on one; more by `make test-faults`.

Each training is a process of its own, since a killed one must not take others along.
"""

import pytest

from shared.machine.interpreters import is_installed, list_siblings
from tests.conftest import Sibling, needs
from tests.trainings import (
    assert_close_training,
    assert_same_training,
    on_devices,
    only_run,
    run,
    torchrun,
    wait,
    workers,
)

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module", params=list_siblings())
def trained(request, tmp_path_factory):
    """A sibling's name and a training that nothing hits."""
    if not is_installed(request.param):
        pytest.skip(f"the {request.param} sibling is not installed")
    folder = tmp_path_factory.mktemp("whole")
    ended = run(request.param, folder)
    assert ended.code == 0, ended.err[-3000:]
    return request.param, only_run(folder, request.param)


@pytest.mark.slow
def test_killed_within_an_epoch_and_resumed_it_is_the_same_training_bit_for_bit(trained, tmp_path):
    sibling, whole = trained
    assert run(sibling, tmp_path, fault="kill", step=9).code == -9  # the second epoch, its first checkpoint behind
    ended = run(sibling, tmp_path)
    assert ended.code == 0, ended.err[-3000:]
    assert "(resumed)" in ended.err
    assert_same_training(whole, only_run(tmp_path, sibling))


@pytest.mark.slow
@pytest.mark.parametrize("devices", [3])  # two are what the launchers start below
def test_several_devices_train_what_one_does(trained, tmp_path, devices):
    sibling, whole = trained
    ended = run(sibling, tmp_path, f"hardware.devices={devices}")
    assert ended.code == 0, ended.err[-3000:]
    assert f" on {devices}\n" in ended.err
    assert ended.out.count("epoch 3/3") == 1  # one process speaks
    assert_close_training(whole, only_run(tmp_path, sibling), on_devices(sibling, devices))


@pytest.mark.slow
def test_two_processes_of_a_launcher_train_what_one_does(trained, tmp_path):
    sibling, whole = trained
    ended = [wait(process) for process in {"lightning": torchrun, "keras": workers}[sibling](tmp_path)]
    assert [one.code for one in ended] == [0] * len(ended), ended[-1].err[-3000:]
    assert "".join(one.out for one in ended).count("epoch 3/3") == 1
    assert_close_training(whole, only_run(tmp_path, sibling))


def refusal(name: str, words: tuple[str, ...], environment: dict[str, str]) -> str | None:
    """What a sibling's `build_runtime` says against a config."""
    import importlib
    import os
    from unittest import mock

    from shared.config import parse_config
    from shared.errors import UserError

    with mock.patch.dict(os.environ, environment):
        try:
            importlib.import_module(f"{name}_project.runtime").build_runtime(parse_config(list(words), "", ""))
        except UserError as error:
            return str(error)
    return None


@pytest.mark.parametrize(("words", "environment", "says"), [
    (("hardware.accelerator=tpu",), {}, "hardware.accelerator=tpu, but there is no TPU here"),
    (("hardware.strategy=fsdp",), {}, "hardware.strategy=fsdp"),
    (("hardware.num_nodes=2",), {}, "hardware.num_nodes=2 needs a launcher"),
])
def test_what_the_machine_lacks_is_refused(sibling, words, environment, says):
    assert says in (sibling.call(refusal, words, environment) or "accepted")


def test_keras_alone_cannot_look_into_what_is_computed_again(sibling):
    words = ("model.name=vit_tiny", "model.gradient_checkpointing=true", "debug.detect_anomaly=true")
    said = sibling.call(refusal, words, {})
    assert (said or "").startswith("debug.detect_anomaly=true cannot look into") == (sibling.name == "keras")


@pytest.mark.parametrize(("environment", "says"), [
    ({"TF_CONFIG": "{"}, "TF_CONFIG is not"),
    ({"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}'},
     "the cluster has 1 workers, hardware.num_nodes=2"),
    ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "3", "SLURM_STEP_NODELIST": "host[1-3]",
      "SLURM_STEP_TASKS_PER_NODE": "1(x3)"}, "the cluster has 3 workers, hardware.num_nodes=2"),
])
def test_keras_refuses_a_cluster_that_does_not_fit(sibling, environment, says):
    if sibling.name != "keras":
        pytest.skip("Keras alone finds clusters so")
    assert says in (sibling.call(refusal, ("hardware.num_nodes=2",), environment) or "accepted")


@pytest.mark.parametrize("environment", [
    {"WORLD_SIZE": "3", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "3", "TORCHELASTIC_RUN_ID": "1",
     "GROUP_RANK": "0"},
    {"SLURM_NTASKS": "3", "SLURM_NTASKS_PER_NODE": "3", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "train",
     "SLURM_LOCALID": "0", "SLURM_JOB_ID": "1"},
])
def test_lightning_refuses_a_launcher_that_does_not_fit(sibling, environment):
    if sibling.name != "lightning":
        pytest.skip("Lightning alone is launched so")
    said = sibling.call(refusal, ("hardware.devices=2",), environment)
    assert "the launcher started 3 processes" in (said or "accepted")


def drawn_on_two_devices(name: str) -> list[list]:
    """Which of 64 images stochastic depth drops, and which of 64 features dropout, on each of two devices."""
    import tensorflow as tf

    from keras_project.models.layers import Dropout, StochasticDepth

    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0],
                                               [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        layers = [StochasticDepth(0.5), Dropout(0.5)]

    @tf.function
    def draw() -> list:
        ones = tf.ones((64, 1))
        return strategy.run(lambda: [layer(ones, training=True) for layer in layers])
    return [[outputs.numpy().tolist() for outputs in strategy.experimental_local_results(each)] for each in draw()]


@needs("keras")
def test_each_keras_device_draws_for_itself():
    alone = Sibling("keras")  # the number of devices is settled when TensorFlow starts
    for first, second in alone.call(drawn_on_two_devices):
        assert {value for value, in first} == {value for value, in second} == {0, 2}
        assert first != second
    alone.pool.shutdown()


def mends(name: str) -> dict[str, bool]:
    """Whether what keras_project.multi_worker mends is still in Keras."""
    import inspect

    from keras.src.backend.tensorflow import trainer

    return {"reduce_per_replica": 'strategy.reduce("MEAN", v, axis=0)' in inspect.getsource(trainer.reduce_per_replica),
            "_maybe_symbolic_build": "tf.distribute.DistributedValues" in inspect.getsource(
                trainer.TensorFlowTrainer._maybe_symbolic_build)}


def test_keras_still_needs_what_is_mended_for_several_workers(sibling):
    if sibling.name != "keras":
        pytest.skip("Keras alone is mended")
    assert sibling.call(mends) == {"reduce_per_replica": True, "_maybe_symbolic_build": True}, \
        "Keras has changed what keras_project/multi_worker.py replaces: try without it, and pin or drop it"
