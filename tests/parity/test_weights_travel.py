"""Weights that one sibling trained are the other's too: scored alike, started from, and refused where they do not fit.

Every command runs as a user's would, but inside a process that each sibling keeps, so that it imports its framework
once.
"""

import contextlib
import io
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from shared.machine.files import REPOSITORY
from shared.machine.interpreters import PACKAGES, is_installed
from shared.scores import score_logits
from shared.weights.file import fingerprint_weights
from tests.conftest import Sibling

ABSENT = [name for name in PACKAGES if not is_installed(name)]
pytestmark = [pytest.mark.skipif(bool(ABSENT), reason=f"weights travel between two; not installed: {ABSENT}"),
              pytest.mark.timeout(300)]

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

    from shared.batches.data import load_data
    from shared.config import parse_config

    models = importlib.import_module(f"{sibling}_project.models")
    importlib.import_module(f"{sibling}_project.runtime").build_runtime(parse_config(list(SMALL), "test", ""))
    config = parse_config(list(SMALL), "test", "")
    model = models.build_model(config, load_data(config))
    models.load_weights(model, weights)
    return models.neutral_weights(model)


@pytest.fixture(scope="module")
def siblings():
    both = {name: Sibling(name) for name in PACKAGES}
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
@pytest.mark.parametrize("reader", OTHER)
def test_round_trip_is_bit_equal(siblings, runs, source, reader):
    weights = load_file(runs[source] / "best.safetensors")
    held = siblings[reader].call(through_the_model, weights)
    assert held.keys() == weights.keys()
    for name, tensor in weights.items():
        assert (held[name].dtype, held[name].shape) == (tensor.dtype, tensor.shape), name
        assert held[name].tobytes() == tensor.tobytes(), name


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
