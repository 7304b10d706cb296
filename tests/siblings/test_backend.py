"""Keras computes with TensorFlow, or with JAX where KERAS_BACKEND says so, and then to the same numbers. Any other wish
is refused in one line."""

import json
import os
import subprocess
import sys

import pytest

from shared.machine.files import REPOSITORY
from tests.conftest import needs, needs_jax
from tests.trainings import Ended, assert_close_training, assert_same_training, only_run, run

pytestmark = needs("keras")
ON_JAX = {"KERAS_BACKEND": "jax"}


def start(*words: str, program: str = "keras_project/train.py", **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, program, *words], cwd=REPOSITORY, text=True, capture_output=True,
                          timeout=120, env=os.environ | {"KERAS_BACKEND": ""} | variables)


def assert_refused(done: subprocess.CompletedProcess, says: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("variables", "content", "says"), [
    ({"KERAS_BACKEND": "torch"}, {}, "KERAS_BACKEND=torch is not for this repository"),
    ({"KERAS_BACKEND": "jaxx"}, {}, "set one of tensorflow, jax"),
    ({}, {"backend": "torch"}, "keras.json says backend 'torch'"),
    ({}, {"backend": "jax"}, "set KERAS_BACKEND to one of tensorflow, jax")])
def test_another_backend_is_refused(tmp_path, variables, content, says):
    (tmp_path / "keras.json").write_text(json.dumps(content), encoding="utf-8")
    done = start(f"output_dir={tmp_path / 'runs'}", KERAS_HOME=str(tmp_path), **variables)
    assert_refused(done, says)
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_jax_that_is_not_installed_is_one_line(tmp_path):
    (tmp_path / "jax.py").write_text("raise ModuleNotFoundError(\"No module named 'jax'\", name='jax')")
    path = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    assert_refused(start(f"output_dir={tmp_path / 'runs'}", PYTHONPATH=path, **ON_JAX), "install the extra jax")


def test_a_keras_that_is_there_already_is_refused(tmp_path):
    """As in a notebook."""
    program = tmp_path / "program.py"
    program.write_text(f"import sys, types; sys.path.insert(0, {str(REPOSITORY)!r})\n"
                       "config = types.SimpleNamespace(backend=lambda: 'torch')\n"
                       "sys.modules['keras'] = types.SimpleNamespace(config=config)\n"
                       "from shared.machine.ending import report_errors\n"
                       "def work():\n    import keras_project\n"
                       "report_errors(work)\n", encoding="utf-8")
    assert_refused(start(program=str(program)), "Keras computes with torch in this process already")


@needs_jax
@pytest.mark.parametrize("word", ["hardware.devices=2", "hardware.strategy=data_parallel", "hardware.precision=fp16",
                                  "augment.policy=augmix", "debug.detect_anomaly=true", "debug.deterministic=true"])
def test_what_jax_cannot_do_is_refused(tmp_path, word):
    done = start(word, f"output_dir={tmp_path / 'runs'}", **ON_JAX)
    assert_refused(done, f"{word} is not for KERAS_BACKEND=jax")
    assert not (tmp_path / "runs").exists()


CASES = {
    "adamw": [],  # with averages and lookahead, as all of them
    "frozen, then in parts": ["model.freeze=backbone", "train.unfreeze_epoch=1", "train.accumulate=2",
                              "optimizer.backbone_lr_factor=0.1", "train.grad_clip=0.5", "optimizer.name=sgd",
                              "optimizer.norm_bias_lr_factor=4", "train.metrics=[top5,macro_f1]"],
    "a transformer": ["model.name=vit_tiny", "model.patch_size=4", "optimizer.name=muon", "train.loss=focal",
                      "model.gradient_checkpointing=true", "evaluate.tta=mirror_translate"],
}


def finish(ended: Ended, folder):
    assert ended.code == 0, ended.err[-2000:]
    return only_run(folder, "keras")


@pytest.mark.slow
@needs_jax
@pytest.mark.parametrize("words", CASES.values(), ids=CASES)
def test_jax_trains_as_tensorflow_does(tmp_path, words):
    runs = [finish(run("keras", tmp_path / backend, *words, env={"KERAS_BACKEND": backend}), tmp_path / backend)
            for backend in ("tensorflow", "jax")]
    assert_close_training(*runs, 1e-11)
    records = [json.loads((folder / "run.json").read_text(encoding="utf-8")) for folder in runs]
    assert [record["backend"].partition(" ")[0] for record in records] == ["TensorFlow", "JAX"]


@pytest.mark.slow
@needs_jax
def test_a_killed_training_on_jax_is_resumed_exactly(tmp_path):
    whole = finish(run("keras", tmp_path / "whole", env=ON_JAX), tmp_path / "whole")
    assert run("keras", tmp_path / "cut", fault="kill", step=9, env=ON_JAX).code == -9
    assert_same_training(whole, finish(run("keras", tmp_path / "cut", env=ON_JAX), tmp_path / "cut"))


@pytest.mark.slow
@needs_jax
def test_weights_of_jax_are_used_by_tensorflow(tmp_path):
    # Not the small ResNet of `run`, which the programs here do not know.
    folder = finish(run("keras", tmp_path, "model.name=airbench", env=ON_JAX), tmp_path)
    scores = [start(str(folder), program="keras_project/evaluate.py", KERAS_BACKEND=backend).stdout.splitlines()[0]
              for backend in ("tensorflow", "jax")]
    assert scores[0] == scores[1]
    assert_refused(start(str(folder), "--to", "onnx", program="keras_project/export.py", **ON_JAX),
                   "export.py is not for KERAS_BACKEND=jax")
