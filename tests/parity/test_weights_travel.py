"""Weights that one sibling trained are the other's too: scored alike, started from, and refused where they do not fit.

Every command runs as a user's would, but inside a process that each sibling keeps, so that it imports its framework
once.
"""

import contextlib
import csv
import io
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from shared.machine.files import REPOSITORY
from shared.machine.interpreters import list_siblings
from shared.scores import score_logits
from shared.weights.file import fingerprint_weights
from tests.conftest import Sibling, needs_both
from tests.siblings.test_explain import SIZES, explain_small

pytestmark = [needs_both, pytest.mark.timeout(300)]

OTHER = {"lightning": "keras", "keras": "lightning"}
SMALL = ("tracking.mode=disabled", "hardware.precision=fp32", "hardware.threads=1", "hardware.accelerator=cpu",
         "dataset.limit_train=220", "dataset.limit_test=60", "train.batch_size=32", "schedule.warmup_epochs=1",
         "optimizer.lr=0.01")


def run_command(sibling, command, *words):
    """Exit status and what was printed to both streams by `python <sibling>_project/<command>.py words...`."""
    sys.argv = [command, *words]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_path(str(REPOSITORY / f"{sibling}_project" / f"{command}.py"), run_name="__main__")
            status = 0
        except SystemExit as left:
            status = left.code
    return status, out.getvalue(), err.getvalue()


def through_the_model(sibling, weights):
    """What the sibling's model holds of neutral weights after it loaded them."""
    import importlib

    from shared.config import parse_config
    from shared.data.loading import load_data

    models = importlib.import_module(f"{sibling}_project.models")
    importlib.import_module(f"{sibling}_project.runtime").build_runtime(parse_config(list(SMALL), "test", ""))
    config = parse_config(list(SMALL), "test", "")
    model = models.build_model(config, load_data(config))
    models.load_weights(model, weights)
    return models.neutral_weights(model)


@pytest.fixture(scope="module")
def siblings():
    both = {name: Sibling(name) for name in list_siblings()}
    yield both
    for sibling in both.values():
        sibling.pool.shutdown()


@pytest.fixture(scope="module")
def runs(siblings, tmp_path_factory):
    """A finished run of each sibling."""
    folder = tmp_path_factory.mktemp("runs")
    for sibling in siblings.values():
        status, _, err = sibling.call(run_command, "train", *SMALL, f"output_dir={folder}", "train.epochs=2")
        assert status == 0, err
    return {name: next(folder.glob(f"quickstart/{name}_*")) for name in siblings}


@pytest.mark.parametrize("source", OTHER)
def test_the_other_sibling_scores_a_run_alike(siblings, runs, source):
    run, other = runs[source], OTHER[source]
    status, out, err = siblings[other].call(run_command, "evaluate", str(run), "hardware.devices=2",
                                              "hardware.strategy=data_parallel")
    assert status == 0, err
    assert ", one device" in err
    own, found = (np.load(run / name) for name in ("predictions.npz", f"predictions_{other}.npz"))
    np.testing.assert_array_equal(found["index"], own["index"])
    np.testing.assert_array_equal(found["label"], own["label"])
    np.testing.assert_allclose(found["logits"], own["logits"], rtol=0, atol=1e-4)
    accuracy = json.loads((run / "result.json").read_text())["test/accuracy"]
    assert score_logits(found["logits"], found["label"])["accuracy"] == accuracy
    assert f"test/accuracy {accuracy:.4f}" in out


@pytest.mark.parametrize("source", OTHER)
def test_both_siblings_predict_a_run_alike(siblings, runs, tmp_path, source):
    for number in range(20):
        pixels = np.random.default_rng(number).integers(0, 256, (12, 9), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    (tmp_path / "bad.png").touch()
    tables = []
    for sibling in siblings.values():
        status, out, _ = sibling.call(run_command, "predict", str(runs[source]), str(tmp_path), "--top", "3")
        assert status == 1
        tables.append(list(csv.reader(io.StringIO(out))))
    assert len(tables[0]) == 22
    for one, other in zip(*tables, strict=True):
        for cell, twin in zip(one, other, strict=True):
            assert cell == twin or float(cell) == pytest.approx(float(twin), abs=1e-5)


@pytest.mark.parametrize("source", OTHER)
@pytest.mark.parametrize("reader", OTHER)
def test_round_trip_is_bit_equal(siblings, runs, source, reader):
    weights = load_file(runs[source] / "best.safetensors")
    held = siblings[reader].call(through_the_model, weights)
    assert held.keys() == weights.keys()
    for name, tensor in weights.items():
        assert (held[name].dtype, held[name].shape) == (tensor.dtype, tensor.shape), name
        assert held[name].tobytes() == tensor.tobytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("source", OTHER)
def test_init_from_starts_from_the_other_siblings_run(siblings, runs, tmp_path, source):
    other = OTHER[source]
    status, _, err = siblings[other].call(run_command, "train", *SMALL, f"output_dir={tmp_path}", "train.epochs=1",
                                          f"init_from={runs[source]}")
    assert status == 0, err
    assert f"starting from weights from {runs[source] / 'best.safetensors'}" in err
    facts = json.loads(next(tmp_path.glob("quickstart/*/run.json")).read_text())
    assert facts["framework"] == other
    assert facts["fingerprints"]["initial_weights"] == fingerprint_weights(load_file(runs[source] / "best.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize("sibling", OTHER)
def test_head_of_other_classes_is_left_out_with_a_message(siblings, runs, tmp_path, sibling):
    weights = load_file(runs[OTHER[sibling]] / "best.safetensors")
    weights |= {"fc.weight": weights["fc.weight"][:7], "fc.bias": weights["fc.bias"][:7]}
    save_file(weights, tmp_path / "seven.safetensors")
    status, _, err = siblings[sibling].call(run_command, "train", *SMALL, f"output_dir={tmp_path / 'runs'}",
                                            "train.epochs=1", f"init_from={tmp_path / 'seven.safetensors'}")
    assert status == 0, err
    assert "fc.weight, fc.bias drawn anew for 10 classes" in err


def spoil(weights, case, file):
    """Write a weight file that does not fit; return what the error has to say."""
    weights = dict(weights)
    says = {"missing": "missing layer2.0.conv1.weight", "extra": "unexpected layer9.weight",
            "shape": "bn1.weight is (63,), expected (64,)", "truncated": "not a readable safetensors file",
            "no safetensors": "not a readable safetensors file"}[case]
    if case == "missing":
        del weights["layer2.0.conv1.weight"]
    if case == "extra":
        weights["layer9.weight"] = np.zeros(3, np.float32)
    if case == "shape":
        weights["bn1.weight"] = weights["bn1.weight"][1:]
    save_file(weights, file)
    if case == "truncated":
        file.write_bytes(file.read_bytes()[:-1000])
    if case == "no safetensors":
        file.write_bytes(b"not at all")
    return says


@pytest.mark.slow
@pytest.mark.parametrize("case", ["missing", "extra", "shape", "truncated", "no safetensors"])
@pytest.mark.parametrize("sibling", OTHER)
def test_file_that_does_not_fit_is_refused_by_name(siblings, runs, tmp_path, sibling, case):
    file = tmp_path / "spoilt.safetensors"
    says = spoil(load_file(runs[sibling] / "best.safetensors"), case, file)
    for words in (("evaluate", str(file), *SMALL),
                  ("train", *SMALL, f"output_dir={tmp_path / 'runs'}", f"init_from={file}")):
        status, _, err = siblings[sibling].call(run_command, *words)
        assert status == 2
        last = err.splitlines()[-1]
        assert last.startswith("error: ")
        assert says in last
        assert "spoilt.safetensors" in last
    assert list(Path(tmp_path).iterdir()) == [file]


# Stock layers of Keras and their twins of PyTorch, both called "layer", and an input without its batch, channels last.
TWINS = [
    ("Dense(3)", "Linear(4, 3)", (4,)), ("Embedding(7, 3)", "Embedding(7, 3)", (5,)),
    ("Conv1D(3, 2)", "Conv1d(4, 3, 2)", (5, 4)),
    ("Conv2D(6, (3, 2), 2, groups=2)", "Conv2d(4, 6, (3, 2), 2, groups=2)", (7, 6, 4)),
    ("Conv3D(3, 2)", "Conv3d(2, 3, 2)", (4, 4, 4, 2)),
    ("Conv1DTranspose(3, 3, 2)", "ConvTranspose1d(4, 3, 3, 2)", (5, 4)),
    ("Conv2DTranspose(3, (3, 2), 2)", "ConvTranspose2d(4, 3, (3, 2), 2)", (5, 4, 4)),
    ("Conv3DTranspose(3, 2)", "ConvTranspose3d(2, 3, 2)", (3, 4, 5, 2)),
    ("DepthwiseConv1D(2, depth_multiplier=2)", "Conv1d(4, 8, 2, groups=4)", (5, 4)),
    ("DepthwiseConv2D((3, 2), depth_multiplier=2)", "Conv2d(4, 8, (3, 2), groups=4)", (5, 5, 4)),
    ("SeparableConv1D(3, 2, depth_multiplier=2)",
     "Sequential(OrderedDict(depthwise=nn.Conv1d(4, 8, 2, groups=4, bias=False), pointwise=nn.Conv1d(8, 3, 1)))",
     (5, 4)),
    ("SeparableConv2D(3, (3, 2), depth_multiplier=2)",
     "Sequential(OrderedDict(depthwise=nn.Conv2d(4, 8, (3, 2), groups=4, bias=False), pointwise=nn.Conv2d(8, 3, 1)))",
     (5, 5, 4)),
    ("BatchNormalization(epsilon=1e-5)", "BatchNorm1d(4)", (4,)),
    ("BatchNormalization(epsilon=1e-5)", "BatchNorm2d(4)", (5, 5, 4)),
    ("LayerNormalization(epsilon=1e-5)", "LayerNorm(4)", (4,)),
    ("RMSNormalization(epsilon=1e-6)", "RMSNorm(4, 1e-6)", (4,)),
    ("GroupNormalization(2, epsilon=1e-5)", "GroupNorm(2, 4)", (5, 5, 4)), ("PReLU()", "PReLU(4)", (4,)),
    ("PReLU(shared_axes=[1, 2])", "PReLU(4)", (5, 5, 4)), ("PReLU(shared_axes=[1, 2, 3])", "PReLU()", (5, 5, 4)),
]


def twin(sibling, expression, shape, path):
    """Outputs of the sibling's layer with the weights in `path`, which it draws and writes where there is no file."""
    from collections import OrderedDict
    from importlib import import_module

    from shared.config import Config
    from shared.weights.file import read_weights, save_weights

    neutral, draws = import_module(f"{sibling}_project.models.neutral"), np.random.default_rng(0)
    inputs = draws.integers(0, 7, (3, *shape)).astype(np.int32) if "Embedding" in expression \
        else draws.normal(size=(3, *shape)).astype(np.float32)
    if sibling == "keras":
        import keras
        from keras import layers

        layer = eval(f"layers.{expression}", {"layers": layers})
        layer = type(layer).from_config(layer.get_config() | {"name": "layer"})
        images = keras.Input(shape, dtype=inputs.dtype.name)
        model = keras.Model(images, layer(images))
    else:
        import torch
        from torch import nn

        layer = eval(f"nn.{expression}", {"nn": nn, "OrderedDict": OrderedDict})
        model = nn.Sequential(OrderedDict(layer=layer)).eval()
    if not path.exists():
        save_weights(path, {name: draws.uniform(0.5, 1.5, shape).astype(np.float32)
                            for name, shape in neutral.neutral_shapes(model).items()}, Config(), ())
    neutral.load_weights(model, read_weights(path))
    if sibling == "keras":
        return np.asarray(model(inputs, training=False))
    with torch.no_grad():
        if "Embedding" in expression:
            return model(torch.from_numpy(inputs)).numpy()
        return np.moveaxis(model(torch.from_numpy(np.moveaxis(inputs, -1, 1).copy())).numpy(), 1, -1)


@pytest.mark.parametrize("source", OTHER)
@pytest.mark.parametrize(("in_keras", "in_pytorch", "shape"), TWINS)
def test_a_stock_layer_has_the_weights_of_its_twin(siblings, tmp_path, source, in_keras, in_pytorch, shape):
    path, expressions = tmp_path / "weights.safetensors", {"keras": in_keras, "lightning": in_pytorch}
    written, read = (siblings[name].call(twin, expressions[name], shape, path) for name in (source, OTHER[source]))
    assert np.abs(written).max() > 0.1
    np.testing.assert_allclose(read, written, rtol=0, atol=1e-5)


# The last two sizes are so small that the map is taken of an earlier stage.
@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [*SIZES.items(), ("resnet18", 8), ("efficientnet_b0", 32)])
def test_the_same_weights_are_explained_by_the_same_maps(siblings, name, size):
    ours, theirs = (sibling.call(explain_small, name, size) for sibling in siblings.values())
    assert ours.shape == theirs.shape
    assert ours.max() > 0
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.99
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3 * ours.max())
