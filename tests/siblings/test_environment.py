"""What the user's machine has configured for a framework cannot change the experiment, or is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from shared.machine.files import REPOSITORY
from shared.machine.interpreters import is_installed
from tests.conftest import Sibling, needs, train


def run(sibling: str, *words: str, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, f"{sibling}_project/train.py", *words], cwd=REPOSITORY, text=True,
                          env=os.environ | variables, capture_output=True, timeout=280)


@pytest.mark.slow
@pytest.mark.parametrize(("sibling", "name"), [
    pytest.param("lightning", "PL_TRAINER_MAX_STEPS", marks=needs("lightning")),
    pytest.param("lightning", "PL_TRAINER_FAST_DEV_RUN", marks=needs("lightning")),
    pytest.param("keras", "KERAS_MAX_EPOCHS", marks=needs("keras")),
    pytest.param("keras", "KERAS_MAX_STEPS_PER_EPOCH", marks=needs("keras"))])
def test_a_variable_that_shortens_the_training_is_refused(tmp_path, sibling, name):
    done = run(sibling, f"output_dir={tmp_path / 'runs'}", **{name: "1"})
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: the environment variable {name} ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@needs("keras")
@pytest.mark.parametrize("content", [{"floatx": "bfloat16"}, {"epsilon": 1}, {"image_data_format": "first"}])
def test_a_keras_json_that_keras_refuses_is_one_line(tmp_path, content):
    (tmp_path / "keras.json").write_text(json.dumps(content), encoding="utf-8")
    done = run("keras", f"output_dir={tmp_path / 'runs'}", KERAS_HOME=str(tmp_path))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"error: {tmp_path}/keras.json: ")


def train_with_settings(sibling: str, folder: str, *words: str) -> dict:
    """A training in a process where another part of a notebook has changed the framework's settings."""
    if sibling == "lightning":
        import torch

        torch.set_default_device("meta")
        torch.set_default_dtype(torch.float64)
        torch.set_float32_matmul_precision("medium")
    else:
        from keras import config

        config.set_image_data_format("channels_first")
        config.set_epsilon(1e-2)
        config.set_floatx("float16")
        config.set_dtype_policy("mixed_bfloat16")
        config.set_max_epochs(1)
        config.set_max_steps_per_epoch(2)
    return train(sibling, folder, *words)


@pytest.mark.slow
def test_settings_of_a_notebook_change_nothing(sibling, tmp_path):
    words = ["optimizer.name=adam", "optimizer.lr=0.001", "train.epochs=2"]
    plain = sibling.call(train, str(tmp_path / "plain"), *words)
    other = Sibling(sibling.name)
    changed = other.call(train_with_settings, str(tmp_path / "changed"), *words)
    other.pool.shutdown()
    assert plain["error"] is None, plain["error"]
    assert changed["error"] is None, changed["error"]
    scores = [{name: value for name, value in done["result"].items() if name.startswith(("test/", "val/"))}
              for done in (plain, changed)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-6)
    records = [json.loads((done["run"] / "run.json").read_text(encoding="utf-8")) for done in (plain, changed)]
    assert records[0]["parameters"] == records[1]["parameters"]


HOSTILE = {"keras": {"KERAS_BACKEND": "tensorflow", "KERAS_NNX_ENABLED": "true", "TF_USE_LEGACY_KERAS": "1",
                     "KERAS_FLOATX": "float16"},
           "lightning": {"TORCH_HOME": "nowhere", "LOCAL_RANK": "3", "WORLD_SIZE": "4"}}
FIRST_WORDS = {"keras": "Keras 3", "lightning": "PyTorch 2"}


@pytest.mark.slow
@pytest.mark.parametrize("sibling", [pytest.param(name, marks=needs(name)) for name in HOSTILE])
def test_a_clean_start_whatever_is_set(tmp_path, sibling):
    """The first line is ours, the run is recorded with what was set, and keras_cv's operations are found."""
    (tmp_path / "keras.json").write_text('{"image_data_format": "channels_first", "backend": "torch"}',
                                         encoding="utf-8")
    done = run(sibling, f"output_dir={tmp_path / 'runs'}", "dataset.limit_train=80", "dataset.limit_test=40",
               "train.batch_size=32", "train.epochs=1", "augment.policy=randaugment", "tracking.mode=disabled",
               "schedule.warmup_epochs=0", "hardware.precision=fp32", KERAS_HOME=str(tmp_path),
               TF_ENABLE_ONEDNN_OPTS="0", OMP_NUM_THREADS="1", **HOSTILE[sibling])
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(FIRST_WORDS[sibling])
    record = json.loads(next((tmp_path / "runs").rglob("run.json")).read_text(encoding="utf-8"))
    assert record["environment"].items() >= {"TF_ENABLE_ONEDNN_OPTS": "0", "OMP_NUM_THREADS": "1"}.items()
    assert record["environment"].keys() <= {"TF_ENABLE_ONEDNN_OPTS", "OMP_NUM_THREADS", *os.environ}  # the user's own
    assert record["parameters"] == 11_172_810
    assert record["threads"] >= 1


def read_batches(_: str, root: str, in_memory_of: float) -> list[dict[str, np.ndarray]]:
    from lightning_project.data import DataModule
    from lightning_project.runtime import build_runtime
    from shared.config import parse_config
    from shared.data.loading import load_data
    config = parse_config(["configs/image_folder.yaml", f"dataset.root={root}", "dataset.image_size=32",
                           "train.batch_size=8", "train.epochs=1", "schedule.warmup_epochs=0", "hardware.workers=2",
                           "hardware.precision=fp32"], "", "")
    with mock.patch("lightning_project.data.measure_shared_memory", return_value=in_memory_of):
        module = DataModule(config, load_data(config), build_runtime(config))
    batches = [{name: np.asarray(array) for name, array in module.on_before_batch_transfer(batch, 0).items()}
               for batch in module.train_dataloader()]
    return [batches, module.in_pipes]


def test_readers_send_batches_in_pipes_where_shared_memory_is_small(tmp_path):
    if not is_installed("lightning"):
        pytest.skip("Keras reads in threads, which share their memory")
    from tests.siblings.test_training_images import pictures

    pictures(tmp_path / "pictures")
    lightning = Sibling("lightning")
    shared, in_pipes = lightning.call(read_batches, str(tmp_path / "pictures"), float("inf"))
    sent, really_in_pipes = lightning.call(read_batches, str(tmp_path / "pictures"), 1000.0)
    lightning.pool.shutdown()
    assert (in_pipes, really_in_pipes) == (False, True)
    assert len(shared) == len(sent) > 1
    for one, other in zip(shared, sent, strict=True):
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)


@needs("lightning")
@pytest.mark.parametrize("words", [["-c"], ["-"]])
def test_several_devices_without_a_script_are_refused(tmp_path, words):
    program = ("from shared.config import parse_config; from shared.config.command import report_errors; "
               "from lightning_project.train import train; report_errors(lambda: train(parse_config("
               f"['hardware.devices=2', 'output_dir={tmp_path / 'runs'}', 'tracking.mode=disabled'], '', '')))")
    done = subprocess.run([sys.executable, *words, *([program] if words == ["-c"] else [])], cwd=REPOSITORY, text=True,
                          input=program, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, capture_output=True,
                          timeout=120)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: hardware.devices=2 starts this program once more")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("sibling", [pytest.param(name, marks=needs(name)) for name in FIRST_WORDS])
def test_a_notebook_trains_on_one_device_and_refuses_two_in_lightning(tmp_path, sibling):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    cells = [f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
             "from shared.config import parse_config\n"
             f"from {sibling}_project.train import train\n"
             f"words = ['output_dir={tmp_path / 'runs'}', 'dataset.limit_train=80', 'dataset.limit_test=40',\n"
             "         'train.batch_size=32', 'train.epochs=1', 'schedule.warmup_epochs=0', 'tracking.mode=disabled']",
             "result = train(parse_config(words, '', ''))\nprint(result['test/accuracy'])",
             "try:\n    train(parse_config([*words, 'hardware.devices=2', 'train.batch_size=20'], '', ''))\n"
             "except Exception as error:\n    print(type(error).__name__, error)"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=200, kernel_name="python3",
                            resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = ["".join(output.get("text", "") for output in cell["outputs"] if output.get("name") == "stdout")
               for cell in notebook.cells]
    assert 0 <= float(printed[1].splitlines()[-1]) <= 1
    folders = [path.parent for path in Path(tmp_path / "runs").rglob("result.json")]
    assert len(folders) == 1
    refusal = {"lightning": "UserError hardware.devices=2 starts this program once more",
               "keras": "UserError hardware.devices=2, but TensorFlow runs on fewer already; start a new process"}
    assert printed[2].startswith(refusal[sibling])
