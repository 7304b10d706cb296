"""What both siblings export: every model to every format, at small sizes; and the commands as they are typed."""

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
from tests.conftest import REPOSITORY

pytest.importorskip("onnxruntime", reason="the extra export is not installed")

SIZE, CLASSES = 16, 5
# Tables of shared.models, with fewer and narrower layers.
SMALL = {"RESNETS": {"resnet18": ((1, 0, 0, 0), False), "resnet34": ((0, 1, 0, 0), False),
                     "resnet50": ((1, 0, 0, 0), True)},
         "VITS": {"vit_tiny": (24, 1, 3), "vit_small": (48, 1, 6), "vit_base": (24, 1, 12)},
         "EFFICIENTNETS": {"efficientnet_b0": (0.25, 0.2), "efficientnet_b3": (0.3, 0.2)}}
# What a format cannot take, and the words of the refusal. A test says when it can.
REFUSED: dict[tuple[str, str, str], str] = {}


def shrink_models():
    """A context in which all models are small."""
    from contextlib import ExitStack

    from shared import models

    stack = ExitStack()
    for table, small in SMALL.items():
        stack.enter_context(mock.patch.dict(getattr(models, table), small))
    stack.enter_context(mock.patch.object(models, "STAGES", models.STAGES[:2]))
    return stack


def write_run(sibling, folder, name, *words):
    """The weights of an untrained model whose BatchNorm has seen other images than it will be asked about, so that a
    model in training mode would answer otherwise; and its config."""
    from types import SimpleNamespace

    from shared.config import parse_config
    from shared.weights.file import save_weights
    from shared.weights.initial import draw_initial_weights

    config = parse_config([f"model.name={name}", f"dataset.image_size={SIZE}", "hardware.threads=1",
                           "dataset.name=cifar10", *words], "test", "")
    models = importlib.import_module(f"{sibling}_project.models")
    data = SimpleNamespace(channels=3, classes=tuple(map(str, range(CLASSES))), image_size=SIZE)
    weights = draw_initial_weights(models.neutral_shapes(models.build_model(config, data)), 0)
    draws = np.random.default_rng(0)
    for tensor, values in weights.items():
        if ".running_" in tensor:
            weights[tensor] = values + draws.uniform(0, 0.5, values.shape).astype(np.float32)
    save_weights(folder / "best.safetensors", weights, config, data.classes)


def plan(sibling, folder, *words):
    from shared.artifacts import command

    options = command.parse_arguments([str(folder), *words], sibling, "export.py", "")
    with mock.patch.object(command, "load_data_of", side_effect=UserError("no data set here")):
        return command.plan_job(options, sibling)


def ask_here(folder, given, found):
    """`ask_in_new_process` without a new process, which would import a framework each time."""
    from shared.artifacts.asking import ask_in_batches

    try:
        return ask_in_batches(folder, given, found)
    except UserError as error:
        return str(error)


def export(sibling, folder, name, *words, sabotage=False):
    """What of the folder's exports is there after `words`, and the error's message."""
    from shared.artifacts import checking

    folder.mkdir(exist_ok=True)
    module, error = importlib.import_module(f"{sibling}_project.export"), ""
    with shrink_models(), mock.patch.object(checking, "ask_in_new_process", ask_here):
        write_run(sibling, folder, name)
        job = plan(sibling, folder, *words)
        try:
            with train_instead(sibling) if sabotage else shrink_models():
                module.export(job)
        except UserError as raised:
            error = str(raised)
    found = {path.parent.name: json.loads(path.read_text()) for path in folder.glob("exports/*/artifact.json")}
    return found, error


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
    found, error = sibling.call(export, tmp_path / "run", name)
    refused = {form for maker, model, form in REFUSED if (maker, model) == (sibling.name, name)}
    assert set(found) == {f"{sibling.name}-{form}" for form in list_formats(sibling.name) if form not in refused}, error
    for content in found.values():
        checks = content["checks"]
        assert checks["passed"], checks["reasons"]
        assert checks["delta_logits"] <= 1e-4 * checks["logits_range"]
        assert checks["delta_between_batches"] <= 1e-4 * checks["logits_range"]
        assert content["inputs"]["images"] == {"shape": ["batch", SIZE, SIZE, 3], "dtype": "uint8", "layout": "NHWC",
                                               "meaning": "pixels 0 to 255, as they are after scaling"}


@pytest.mark.parametrize("quantisation", ["dynamic", "fp16"])
def test_smaller_weights(sibling, quantisation, tmp_path):
    formats = list_formats(sibling.name, quantisation)
    if not formats:
        pytest.skip(f"{sibling.name} has no format with {quantisation}")
    found, error = sibling.call(export, tmp_path / "run", "resnet18", "--quantise", quantisation)
    assert set(found) == {f"{sibling.name}-{form}-{quantisation}" for form in formats}, error
    for content in found.values():
        assert content["checks"]["passed"]
        assert content["checks"]["delta_logits"] > 1e-5 * content["checks"]["logits_range"]
        assert ("float16" if quantisation == "fp16" else "int8") in content["checks"]["dtypes"]


def test_normalised_input(sibling, tmp_path):
    found, error = sibling.call(export, tmp_path / "run", "resnet18", "--input", "float", "--to", "onnx")
    assert error == ""
    assert found[f"{sibling.name}-onnx"]["inputs"]["images"]["dtype"] == "float32"


def test_a_model_in_training_mode_is_rejected(sibling, tmp_path):
    form = "pt2" if sibling.name == "lightning" else "onnx"
    found, error = sibling.call(export_sabotaged, tmp_path / "run", "resnet18", "--to", form)
    assert set(found) == {f"{sibling.name}-{form}.rejected"}
    assert "does not answer as the trained model: its logits are" in error
    assert "with the images beside it, as if it were training" in error


def export_sabotaged(*arguments):
    return export(*arguments, sabotage=True)


def decode_as_served(sibling, folder):
    """For each preprocessing: the largest difference of pixels, in grey levels, between Pillow's route and the
    SavedModel's, over PNG and JPEG files of several sizes."""
    from keras_project.artifact import decode
    from shared.batches.preprocessing import Preprocessing
    from shared.datasets.decode import open_rgb

    draws = np.random.default_rng(0)
    from PIL import Image
    for height, width in ((32, 32), (75, 50), (31, 100), (20, 20)):
        noise = Image.fromarray(draws.integers(0, 256, (6, 6, 3), np.uint8)).resize((width, height), 3)
        for ending in ("png", "jpg"):
            noise.save(folder / f"{height}x{width}.{ending}")
        noise.convert("L").save(folder / f"{height}x{width}-grey.png")
    found = []
    for channels, crop, interpolation, rounded in ((3, 1.0, "bilinear", True), (3, 0.875, "bicubic", True),
                                                   (1, 1.0, "bilinear", False)):
        seen = Preprocessing(32, channels, crop, interpolation, rounded, (0.5,) * channels, (0.5,) * channels)
        apart = [np.abs(decode(file.read_bytes(), seen).numpy() - seen.scale(open_rgb(file))).max()
                 for file in sorted(folder.iterdir())]
        found.append(max(apart))
    return found


def test_a_savedmodel_decodes_as_pillow_does(sibling, tmp_path):
    if sibling.name != "keras":
        pytest.skip("SavedModel is Keras' format")
    bilinear, bicubic, matrices = sibling.call(decode_as_served, tmp_path)
    # Pillow computes in whole numbers, so that a value at a half may be rounded to the other side, twice.
    assert bilinear <= 1
    assert bicubic <= 2
    assert matrices < 0.01


def test_the_command_as_it_is_typed(sibling, tmp_path):
    """In processes of their own, from the quick start's kind of weights with its data set; then as the README says."""
    sibling.call(write_digits, tmp_path)
    script = [sys.executable, str(REPOSITORY / f"{sibling.name}_project" / "export.py"), str(tmp_path)]
    form = "pt2" if sibling.name == "lightning" else "savedmodel"
    done = subprocess.run([*script, "--to", form], env=list_variables(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stdout  # nothing of what the converter prints
    assert lines[0].startswith(f"{sibling.name}-{form}: ")
    assert "359 of 359 answers equal, accuracy" in lines[0]
    assert len(done.stderr.splitlines()) == 1, done.stderr  # the line that names the framework
    artifact = read_artifact(tmp_path / "exports" / f"{sibling.name}-{form}")
    assert artifact.content["run"] is None
    (artifact.folder / "image.jpg").write_bytes(read_jpeg())
    code = (artifact.folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    asked = subprocess.run([sys.executable, "-c", code + "\nprint(logits.shape, probabilities.shape)"],
                           cwd=artifact.folder, env=list_variables(), capture_output=True, text=True)
    assert asked.stdout.strip().endswith("(7, 10) (7, 10)") or "torch.Size([7, 10])" in asked.stdout, asked.stderr


def read_jpeg():
    from io import BytesIO

    from PIL import Image
    file = BytesIO()
    Image.new("RGB", (20, 30)).save(file, "JPEG")
    return file.getvalue()


def write_digits(sibling, folder):
    from types import SimpleNamespace

    from shared.config import parse_config
    from shared.weights.file import save_weights
    from shared.weights.initial import draw_initial_weights

    config = parse_config(["hardware.threads=1", "model.name=vit_tiny"], "test", "")
    models = importlib.import_module(f"{sibling}_project.models")
    data = SimpleNamespace(channels=1, classes=tuple("0123456789"), image_size=8)
    weights = draw_initial_weights(models.neutral_shapes(models.build_model(config, data)), 0)
    save_weights(folder / "best.safetensors", weights, config, data.classes)


def test_formats_and_makers():
    assert {maker for known in FORMATS.values() for maker in known.makers} == {"lightning", "keras"}
