"""Exported models: made, checked, refused and described. The model is linear, so that no framework is needed."""

import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from huggingface_hub import ModelCard

from shared.artifacts import asking, checking, making
from shared.artifacts.asking import FEW, SIZES, ask_in_batches
from shared.artifacts.description import DESCRIPTION, read_artifact
from shared.artifacts.making import make_artifacts
from shared.artifacts.runtimes import Loaded, load_artifact, round_pixels
from shared.artifacts.samples import load_data_of
from shared.errors import UserError
from shared.machine.interpreters import list_variables
from tests.shared.artifacts import WIDTH, build_answer, plan, write_onnx, write_run

pytest.importorskip("onnxruntime", reason="the extra export is not installed")
NAME = "keras-onnx"


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("linear") / "run")


@pytest.fixture(scope="module")
def exported(trained_run):
    """The folder of a right export."""
    job = plan(trained_run)
    return make_artifacts(job, build_answer(job), {"onnx": partial(write_onnx, job=job)})[0]


def ask_here(folder, given, found):
    """`ask_in_new_process` without a new process."""
    try:
        return ask_in_batches(folder, given, found)
    except UserError as error:
        return str(error)


@pytest.fixture
def run(exported, tmp_path, monkeypatch):
    """A copy of the run with its right export; what is exported from it is asked in this process."""
    monkeypatch.setattr(checking, "ask_in_new_process", ask_here)
    return shutil.copytree(exported.parents[1], tmp_path / "run")


def make(job, write):
    return make_artifacts(job, build_answer(job), {"onnx": write})


def list_exports(run):
    return sorted(path.name for path in (run / "exports").iterdir())


def test_an_artifact_says_what_it_is_and_answers_as_the_model(exported):
    artifact = read_artifact(exported / "model.onnx")
    content, checks = artifact.content, artifact.content["checks"]
    assert (artifact.name, artifact.input, artifact.classes) == (NAME, "uint8", tuple("0123456789"))
    assert content["inputs"]["images"]["shape"] == ["batch", 8, 8, 1]
    assert content["outputs"]["logits"] == {"shape": ["batch", 10], "dtype": "float32"}
    assert checks["passed"]
    assert (checks["images"], checks["equal_answers"]) == (100, 100)
    assert checks["source"] == "100 of 359 test images of digits"
    assert checks["accuracy"] == checks["accuracy_trained"] > 0.85
    assert checks["delta_logits"] < 1e-5
    assert checks["dtypes"] == ["float", "int64", "uint8"]
    job = plan(exported.parents[1])
    pixels = job.samples.pixels[:3]
    logits, probabilities = load_artifact(artifact, threads=1)(pixels)
    expected = build_answer(job)(job.trained.preprocessing.normalise(pixels))
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    np.testing.assert_allclose(probabilities, np.exp(expected) / np.exp(expected).sum(axis=1, keepdims=True), atol=1e-5)
    # Values between whole numbers are rounded, not cut off.
    np.testing.assert_array_equal(load_artifact(artifact)(pixels + np.float32(0.4))[0], logits)
    assert round_pixels(np.float32([-3, 0.6, 254.6, 300])).tolist() == [0, 1, 255, 255]


def test_the_readme_loads_it(exported, monkeypatch):
    text = (exported / "README.md").read_text(encoding="utf-8")
    assert ModelCard(text).data.pipeline_tag == "image-classification"
    assert all(f"## {part}" in text for part in ("Scores", "Data", "Training", "Limits", "Licence"))
    monkeypatch.chdir(exported)
    names = {}
    exec(text.split("```python\n")[1].split("```")[0], names)
    assert names["logits"].shape == names["probabilities"].shape == (7, 10)


def test_normalised_input(run):
    job = plan(run, input="float")
    artifact = read_artifact(make(job, partial(write_onnx, job=job))[0])
    assert list_exports(run) == [NAME, f"{NAME}-float"]  # the other one has stayed
    assert artifact.content["inputs"]["images"]["dtype"] == "float32"
    pixels = job.samples.pixels[:3]
    np.testing.assert_allclose(load_artifact(artifact)(pixels)[0],
                               build_answer(job)(job.trained.preprocessing.normalise(pixels)), atol=1e-5)


@pytest.mark.parametrize(("wrong", "reason"), [
    ({"shift": 0.01}, "logits are .* from the trained model's, allowed are"),
    ({"batch": 7}, "its runtime does not run it: 64 images: InvalidArgument: .*invalid dimensions"),
    ({"beside": True}, "change by .* with the images beside it"),
    ({"ballast": 2_000_000}, "it has 2,00.,... bytes, allowed are"),
    ({"half": True}, "it computes in bfloat16"),
])
def test_a_wrong_export_is_put_aside_and_the_older_one_stays(run, wrong, reason):
    job, before = plan(run), (run / "exports" / NAME / DESCRIPTION).read_bytes()
    with pytest.raises(UserError, match=reason):
        make(job, partial(write_onnx, job=job, **wrong))
    assert list_exports(run) == [NAME, f"{NAME}.rejected"]
    assert (run / "exports" / NAME / DESCRIPTION).read_bytes() == before
    with pytest.raises(UserError, match=r"is not to be used: .*; export the model again"):
        read_artifact(run / "exports" / f"{NAME}.rejected")
    make(job, partial(write_onnx, job=job))
    assert list_exports(run) == [NAME]


def fill_the_disk(file):
    file.write_bytes(b"half")
    raise OSError(errno.ENOSPC, "No space left on device")


def convert_nothing(file):
    file.write_bytes(b"half")
    raise NotImplementedError("no such layer\nand more")


@pytest.mark.parametrize(("write", "line"), [
    (fill_the_disk, r"keras-onnx cannot be written \(No space left on device\); make room"),
    (convert_nothing, r"model.name=resnet18 cannot be exported to keras-onnx \(NotImplementedError: no such layer\)"),
])
def test_what_cannot_be_written_leaves_nothing(run, write, line):
    with pytest.raises(UserError, match=line):
        make(plan(run), write)
    assert list_exports(run) == [NAME]
    assert read_artifact(run / "exports" / NAME)


def test_a_folder_that_cannot_be_written_to(run):
    shutil.rmtree(run / "exports")
    (run / "exports").write_text("")
    with pytest.raises(UserError, match=r"exports/keras-onnx cannot be written \(.*\); make room, or export a copy"):
        make(plan(run), fill_the_disk)


def test_a_full_disk_is_told_before_anything_is_written(run, monkeypatch):
    monkeypatch.setattr(making.shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(UserError, match=r"needs .* MB on the disk and 0 are free; make room"):
        make(plan(run), fill_the_disk)
    assert list_exports(run) == [NAME]


def test_what_was_interrupted_is_swept_away(run):
    job = plan(run)
    shutil.copytree(run / "exports" / NAME, run / "exports" / f"{NAME}.unfinished")
    make(job, partial(write_onnx, job=job))
    assert list_exports(run) == [NAME]


def test_what_a_kill_between_two_renames_left_is_found_again(run):
    os.replace(run / "exports" / NAME, run / "exports" / f"{NAME}.older")
    with pytest.raises(UserError, match="cannot be exported"):
        make(plan(run), convert_nothing)
    assert list_exports(run) == [NAME]
    assert read_artifact(run / "exports" / NAME)


def test_a_converter_that_takes_the_process_down_leaves_what_it_said(tmp_path):
    code = "import os, pathlib; from shared.artifacts.making import keep_back_output\n" \
           "with keep_back_output(pathlib.Path('log')): os.write(2, b'assertion failed'); os._exit(7)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=list_variables(), capture_output=True)
    assert (done.returncode, done.stderr) == (7, b"")
    assert (tmp_path / "log").read_text() == "assertion failed"


def ask_fake(exported, folder, monkeypatch, answer):
    """What `asking` writes about 70 images where the model is `answer`."""
    pixels = np.random.default_rng(0).integers(0, 256, (70, 8, 8, 1), np.uint8)
    monkeypatch.setattr(asking, "load_artifact", lambda artifact: Loaded(answer, set, lambda pixels: pixels))
    np.savez(folder / "given.npz", pixels=pixels)
    ask_in_batches(exported, folder / "given.npz", folder / "found.npz")
    with np.load(folder / "found.npz") as found:
        return dict(found)


def test_every_image_is_compared_in_every_size_of_batches(exported, tmp_path, monkeypatch):
    sizes = []

    def answer(pixels):
        """The first pixels, and in batches of seven the fourth image of each is wrong."""
        sizes.append(len(pixels))
        logits = pixels.reshape(-1, WIDTH)[:, :10].astype(np.float32)
        if len(pixels) == 7:
            logits[3] += 2
        return logits, logits
    found = ask_fake(exported, tmp_path, monkeypatch, answer)
    assert sizes == [64, 6, *[1] * FEW, *[7] * (FEW // 7), 64]
    assert found["again"].shape == (len(SIZES), FEW, 10)
    check = checking.Check(70, "")
    checking.compare_answers(check, found, found["logits"], None)
    assert check.delta_between_batches == 2


@pytest.mark.parametrize(("kind", "answers", "line"), [
    ("float16", 10, r"64 images: logits are float16 of shape \(64, 10\), and artifact.json says float32"),
    ("float32", 9, r"64 images: logits are float32 of shape \(64, 9\), .* of shape \('batch', 10\)")])
def test_answers_that_are_not_as_described(exported, tmp_path, monkeypatch, kind, answers, line):
    with pytest.raises(UserError, match=line):
        ask_fake(exported, tmp_path, monkeypatch, lambda pixels: 2 * (np.zeros((len(pixels), answers), kind),))


def test_a_disk_that_is_full_for_another_process_is_no_fault_of_the_model(run, monkeypatch):
    monkeypatch.setattr(checking, "ask_in_new_process", lambda *paths: "OSError: [Errno 28] No space left on device")
    with pytest.raises(UserError, match=r"keras-onnx cannot be written \(No space left on device\); make room"):
        make(job := plan(run), partial(write_onnx, job=job))
    assert list_exports(run) == [NAME]


def test_a_data_set_of_other_classes(run):
    trained = plan(run).trained
    for classes, line in ((("0", "2", "1"), "as number 1 it has '1', and the model '2'; restore"),
                          (tuple("01234567"), "as number 8 it has '8', and the model no class; restore")):
        with pytest.raises(UserError, match=line):
            load_data_of(replace(trained, classes=classes))


def test_without_its_data_set_it_is_checked_with_random_images(run):
    job = plan(run, with_data=False)
    checks = read_artifact(make(job, partial(write_onnx, job=job))[0]).content["checks"]
    assert checks["source"] == "128 random images, since the data set could not be loaded"
    assert (checks["images"], checks["accuracy"]) == (128, None)
    with pytest.raises(UserError, match="is calibrated on training images"):
        plan(run, "int8", with_data=False)


@pytest.mark.parametrize("quantisation", ["int8", "dynamic"])
def test_eight_bits(run, quantisation):
    job = plan(run, quantisation)
    artifact = read_artifact(make(job, partial(write_onnx, job=job))[0])
    checks = artifact.content["checks"]
    assert artifact.folder.name == f"{NAME}-{quantisation}"
    assert set(checks["dtypes"]) & {"int8", "uint8"}
    assert 1e-4 < checks["delta_logits"] < 0.05 * checks["logits_range"]
    assert checks["delta_probabilities"] < 1e-5  # these are computed in fp32
    assert checks["equal_answers"] >= 97


def test_what_the_run_recorded_is_compared(run, capsys):
    job = plan(run)
    assert job.samples.recorded is None
    logits = build_answer(job)(job.trained.preprocessing.normalise(load_data_of(job.trained).test.pixels))
    order = np.arange(len(logits))[::-1]  # a file may hold them in any order
    (run / "config.yaml").write_text("")  # which makes it a run's folder
    np.savez(run / "predictions.npz", index=order, label=order, logits=logits[order] + 1)
    assert plan(run).samples.recorded is None  # the run goes on, and they are of older weights
    (run / "result.json").write_text("{}")
    job = plan(run)
    checks = read_artifact(make(job, partial(write_onnx, job=job))[0]).content["checks"]
    assert checks["delta_to_recorded"] == pytest.approx(1, abs=1e-5)
    assert "the trained model within 1.0e+00 of what the run recorded" in capsys.readouterr().out
    np.savez(run / "predictions.npz", index=order, label=order, logits=logits[order - 1])  # of other images
    with pytest.raises(UserError, match=r"logits are .* from those in predictions.npz, allowed are"):
        make(job := plan(run), partial(write_onnx, job=job))


@pytest.mark.parametrize(("damage", "line"), [
    (lambda folder: (folder / DESCRIPTION).unlink(), "is no exported model of this repository"),
    (lambda folder: (folder / DESCRIPTION).write_text("{"), "artifact.json is damaged or was not written by this"),
    (lambda folder: (folder / DESCRIPTION).write_text(json.dumps({"kind": "other"})), "kind other, expected"),
    (lambda folder: (folder / "model.onnx").unlink(), "model.onnx is missing, which artifact.json describes"),
])
def test_foreign_and_damaged_artifacts(run, damage, line):
    damage(run / "exports" / NAME)
    with pytest.raises(UserError, match=line):
        read_artifact(run / "exports" / NAME)


def test_a_damaged_model_is_told_in_one_line(run):
    (run / "exports" / NAME / "model.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"model.onnx cannot be loaded \(.*\); export the model again"):
        load_artifact(read_artifact(run / "exports" / NAME))
