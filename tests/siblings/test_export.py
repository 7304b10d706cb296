"""What both siblings export: every model to every format, at small sizes; and the commands as typed."""

import importlib
import json
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest

from shared.artifacts.description import read_artifact
from shared.artifacts.formats import FORMATS, list_formats
from shared.errors import UserError
from shared.machine.interpreters import list_variables
from shared.models import MODELS
from tests.conftest import REPOSITORY, train

pytest.importorskip("onnxruntime", reason="the extra export is not installed")

SIZE, CLASSES = 16, 5
# Tables of shared.models, with fewer and narrower layers.
SMALL = {"RESNETS": {"resnet18": ((1, 0, 0, 0), False), "resnet34": ((0, 1, 0, 0), False),
                     "resnet50": ((1, 0, 0, 0), True)},
         "VITS": {"vit_tiny": (24, 1, 3), "vit_small": (48, 1, 6), "vit_base": (24, 1, 12)},
         "EFFICIENTNETS": {"efficientnet_b0": (0.25, 0.2), "efficientnet_b3": (0.3, 0.2)}}


def shrink_models():
    """A context in which all models are small."""
    from contextlib import ExitStack

    from shared import models

    stack = ExitStack()
    for table, small in SMALL.items():
        stack.enter_context(mock.patch.dict(getattr(models, table), small))
    stack.enter_context(mock.patch.object(models, "STAGES", models.STAGES[:2]))
    return stack


def write_run(sibling, folder, name, *words, digits=False):
    """The weights of an untrained model whose BatchNorm has seen other images than it will be asked about, so that a
    model in training mode would answer otherwise; and its config. Its images are small ones of CIFAR-10, or `digits`.
    """
    from types import SimpleNamespace

    from shared.config import parse_config
    from shared.weights.file import save_weights
    from shared.weights.initial import draw_initial_weights

    images = [] if digits else [f"dataset.image_size={SIZE}", "dataset.name=cifar10"]
    config = parse_config([f"model.name={name}", "hardware.threads=1", *images, *words], "test", "")
    models = importlib.import_module(f"{sibling}_project.models")
    data = SimpleNamespace(channels=1 if digits else 3, classes=tuple(map(str, range(10 if digits else CLASSES))),
                           image_size=8 if digits else SIZE)
    weights = draw_initial_weights(models.neutral_shapes(models.build_model(config, data)), 0)
    draws = np.random.default_rng(0)
    for tensor, values in weights.items():
        if ".running_" in tensor:
            weights[tensor] = values + draws.uniform(0, 0.5, values.shape).astype(np.float32)
    save_weights(folder / "best.safetensors", weights, config, data.classes)


def export_run(sibling, folder, *words):
    """Export in this process; the contents of artifact.json by the names of what is there then, and the error's
    message."""
    from shared.artifacts import checking, command

    module, error = importlib.import_module(f"{sibling}_project.export"), ""
    options = command.parse_arguments([str(folder), *words], sibling, "export.py", "")
    with shrink_models(), mock.patch.object(checking, "ask_in_new_process", ask_here):
        try:
            module.export(command.plan_job(options, sibling))
        except UserError as raised:
            error = str(raised)
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("exports/*/artifact.json")}, error


def ask_here(folder, given, found):
    """`ask_in_new_process` without a new process, which would import a framework each time."""
    from shared.artifacts.asking import ask_in_batches

    try:
        return ask_in_batches(folder, given, found)
    except UserError as error:
        return str(error)


def export(sibling, folder, name, words, keys=()):
    """`export_run` of a model that is not trained, without a data set; `keys` are those of its config."""
    from shared.artifacts import samples

    folder.mkdir(exist_ok=True)
    with shrink_models():
        write_run(sibling, folder, name, *keys)
    with mock.patch.object(samples, "load_data", side_effect=UserError("no data set here")):
        return export_run(sibling, folder, *words)


def train_instead(sibling):
    """A context in which what is exported normalises by the batch, as in training, and the trained model does not."""
    module = importlib.import_module(f"{sibling}_project.export")
    if sibling == "lightning":
        from copy import deepcopy

        write = module.write_pt2
        return mock.patch.object(module, "write_pt2", lambda served, file: write(deepcopy(served).train(), file))
    import tensorflow as tf

    from keras_project.models.layers import BatchNorm

    def normalise(layer, inputs, training=None, mask=None):
        mean, variance = tf.nn.moments(inputs, axes=[0, 1, 2])
        return tf.nn.batch_normalization(inputs, mean, variance, layer.beta, layer.gamma, layer.epsilon)
    write = module.write_onnx

    def write_in_training(*arguments):
        with mock.patch.object(BatchNorm, "call", normalise):
            write(*arguments)
    return mock.patch.object(module, "write_onnx", write_in_training)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_exported_to_every_format(sibling, name, tmp_path):
    words = ["model.gradient_checkpointing=true"] if name == "vit_tiny" else []  # which no format has to be able to
    found, error = sibling.call(export, tmp_path / "run", name, [], words)
    assert set(found) == {f"{sibling.name}-{form}" for form in list_formats(sibling.name)}, error
    for content in found.values():
        checks = content["checks"]
        assert checks["passed"], checks["reasons"]
        assert checks["delta_logits"] <= 1e-4 * checks["logits_range"]
        assert checks["delta_between_batches"] <= 1e-4 * checks["logits_range"]
        assert (checks["delta_of_encoded"] is not None) == (content["format"] == "savedmodel")
        assert content["inputs"]["images"] == {"shape": ["batch", SIZE, SIZE, 3], "dtype": "uint8", "layout": "NHWC",
                                               "meaning": "pixels 0 to 255, as they are after scaling"}
    # The check lets a small model take more than twice its weights, since its graph takes more than they do.
    for file in tmp_path.glob("run/exports/keras-savedmodel/1/variables/*.data-*"):
        assert file.stat().st_size < 1.25 * checks["bytes_of_weights"]


def train_vit(sibling, folder):
    """The folder of a run in bf16 whose weights are averaged."""
    from shared.training.recorder import Recorder

    with shrink_models(), mock.patch.object(Recorder, "write_scores", return_value=({}, [])):
        return train(sibling, str(folder), "model.name=vit_tiny", "dataset.limit_train=1000", "dataset.limit_test=100",
                     "train.epochs=4", "optimizer.name=adamw", "optimizer.lr=0.003", "hardware.precision=bf16",
                     "train.ema_decay=0.9", whole_model=True)["run"]


@pytest.fixture(scope="module")
def averaged(sibling, tmp_path_factory):
    return sibling.call(train_vit, tmp_path_factory.mktemp("averaged"))


def test_what_was_trained_in_bf16_and_averaged_is_exported_in_fp32(sibling, averaged):
    found, error = sibling.call(export_run, averaged, "--to", "onnx")
    assert error == ""
    checks = found[f"{sibling.name}-onnx"]["checks"]
    assert "bfloat16" not in checks["dtypes"]
    assert checks["delta_logits"] <= 1e-4 * checks["logits_range"]
    # What the run recorded is in bf16, and of the averaged weights: the last ones are further away.
    assert 1e-4 < checks["delta_to_recorded"] / checks["logits_range"] < 0.02


def quantise(sibling, folder, name):
    """`export_run` of digits to int8, where any answer may change, since small models have close ones; and the kinds of
    operations on floats in each file."""
    from dataclasses import replace

    from shared.artifacts import checking

    if name == "resnet18":
        folder.mkdir()
        with shrink_models():
            write_run(sibling, folder, name, digits=True)
    with mock.patch.dict(checking.CRITERIA, int8=replace(checking.CRITERIA["int8"], changed=1, lost=1)):
        found, error = export_run(sibling, folder, "--quantise", "int8", "--calibration-images", "64", "--test-images",
                                  "100")
    files = folder.glob("exports/*int8/model.*")
    return found, error, {file.parent.name: list_float_operations(file) for file in files}


def list_float_operations(file):
    """The kinds of operations, such as CONV_2D, that take floats in a LiteRT or ONNX file."""
    if file.suffix == ".tflite":
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
        model = Interpreter(str(file), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
        kinds = {tensor["index"]: np.dtype(tensor["dtype"]) for tensor in model.get_tensor_details()}
        return {operation["op_name"] for operation in model._get_ops_details()
                if any(kinds.get(place) == np.float32 for place in operation["inputs"])}
    import onnx
    graph = onnx.load(str(file)).graph
    quantised = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    return {node.op_type for node in graph.node if not set(node.input) & quantised}


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny"])
def test_eight_bits(sibling, name, tmp_path, averaged):
    found, error, floats = sibling.call(quantise, averaged if name == "vit_tiny" else tmp_path / "run", name)
    assert error == ""
    names = {f"{sibling.name}-{form}-int8" for form in list_formats(sibling.name, "int8")}
    assert names == set(floats) <= set(found)
    for export in names:
        checks = found[export]["checks"]
        assert 1e-3 < checks["delta_logits"] / checks["logits_range"] < 0.2
        assert checks["equal_answers"] >= 90
        assert not floats[export] & {"Conv", "MatMul", "Gemm", "CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL"}


@pytest.mark.parametrize("quantisation", ["dynamic", "fp16"])
def test_smaller_weights(sibling, quantisation, tmp_path):
    formats = list_formats(sibling.name, quantisation)
    if not formats:
        pytest.skip(f"{sibling.name} has no format with {quantisation}")
    found, error = sibling.call(export, tmp_path / "run", "resnet18", ["--quantise", quantisation])
    assert set(found) == {f"{sibling.name}-{form}-{quantisation}" for form in formats}, error
    for content in found.values():
        assert content["checks"]["passed"]
        assert content["checks"]["delta_logits"] > 1e-5 * content["checks"]["logits_range"]
        assert ("float16" if quantisation == "fp16" else "int8") in content["checks"]["dtypes"]


def test_normalised_input(sibling, tmp_path):
    found, error = sibling.call(export, tmp_path / "run", "resnet18", ["--input", "float", "--to", "onnx"])
    assert error == ""
    assert found[f"{sibling.name}-onnx-float"]["inputs"]["images"]["dtype"] == "float32"


def test_a_model_in_training_mode_is_rejected(sibling, tmp_path):
    form = "pt2" if sibling.name == "lightning" else "onnx"
    found, error = sibling.call(export_sabotaged, tmp_path / "run", "resnet18", ["--to", form])
    assert set(found) == {f"{sibling.name}-{form}.rejected"}
    assert "does not answer as the trained model: its logits are" in error
    assert "with the images beside it, as if it were training" in error


def export_sabotaged(sibling, *arguments):
    with train_instead(sibling):
        return export(sibling, *arguments)


# A whole ViT would take minutes.
EXPORT = """import runpy, sys
from tests.siblings.test_export import shrink_models
sys.argv = sys.argv[1:]
with shrink_models():
    runpy.run_path(sys.argv[0], run_name="__main__")
"""
SHOW = """import os, sys
for folder in sys.argv[1:]:
    os.chdir(folder)
    exec(open("README.md").read().split("```python\\n")[1].split("```")[0], names := {})
    print(os.path.basename(folder), *(tuple(names[name].shape) for name in ("logits", "probabilities")))
"""


@pytest.mark.slow
def test_the_command_as_it_is_typed(sibling, tmp_path):
    """In processes of their own, with the quick start's data set; then as each README says."""
    sibling.call(write_digits, tmp_path)
    script = [sys.executable, "-c", EXPORT, str(REPOSITORY / f"{sibling.name}_project" / "export.py")]
    words = [*script, str(tmp_path), "--test-images", "100"]
    done = subprocess.run(words, env=list_variables(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    formats = list_formats(sibling.name)
    lines = done.stdout.splitlines()
    assert len(lines) == 2 * len(formats), done.stdout  # nothing of what the converters print
    assert len(done.stderr.splitlines()) == 1, done.stderr  # the line that names the framework
    folders = [tmp_path / "exports" / f"{sibling.name}-{form}" for form in formats]
    for line, folder in zip(lines[::2], folders, strict=True):
        assert line.startswith(f"{folder.name}: ")
        assert "100 of 100 answers equal, accuracy" in line
        artifact = read_artifact(folder)
        assert artifact.content["run"] is None
        # A format with a runtime of its own loads nothing of the siblings, and only Keras' needs the model's classes.
        own = {name for name in artifact.content["checks"]["modules"] if "." in name}
        assert (own == ({f"{sibling.name}_project.loading"} if FORMATS[artifact.format].sibling else set())) == \
            (artifact.format != "keras"), own
        (folder / "image.jpg").write_bytes(read_jpeg())
    # Keras' own first, so that the others' imports cannot help it.
    shown = subprocess.run([sys.executable, "-c", SHOW, *map(str, folders[::-1])], env=list_variables(),
                           capture_output=True, text=True)
    assert shown.stdout.splitlines() == [f"{folder.name} (7, 10) (7, 10)" for folder in folders[::-1]], shown.stderr


def read_jpeg():
    from io import BytesIO

    from PIL import Image
    file = BytesIO()
    Image.new("RGB", (20, 30)).save(file, "JPEG")
    return file.getvalue()


def write_digits(sibling, folder):
    with shrink_models():
        write_run(sibling, folder, "vit_tiny", digits=True)
