"""predict.py answers as evaluation does: the same files give the logits that a run keeps of its test images."""

import contextlib
import importlib
import io
import shutil
import sys
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from shared.config import parse_config
from shared.data.loading import load_data
from tests.conftest import SMALL, train

# As a config tells them: pixels in memory, the same scaled in floating point, and files cropped and scaled by Pillow.
KINDS = {
    "memory": ("dataset.limit_train=100",),
    "scaled": ("dataset.limit_train=100", "dataset.image_size=12", "dataset.center_crop=0.9"),
    "files": ("dataset.name=image_folder", "dataset.image_size=16", "dataset.center_crop=0.9", "train.batch_size=8"),
}


def in_process(function, shapes=SMALL):
    """Call `function` with small models, and keep what it prints on stderr."""
    from shared.models import RESNETS

    with contextlib.redirect_stderr(io.StringIO()) as said, mock.patch.dict(RESNETS, shapes):
        return function(), said.getvalue()


def predicted(sibling, run, images, *settings):
    predict = importlib.import_module(f"{sibling}_project.predict").predict
    found, _ = in_process(lambda: list(predict(run, images, settings)))
    return [row.error for row in found], np.stack([row.logits for row in found])


def evaluated(sibling, run, *words):
    evaluate = importlib.import_module(f"{sibling}_project.evaluate").evaluate
    config = parse_config([f"{run}/config.yaml", *words], "", "")
    with contextlib.redirect_stdout(io.StringIO()):
        result, _ = in_process(lambda: evaluate(config, str(run)))
    return read_logits(result["predictions"])


def commanded(sibling, shapes, *words):
    """Exit status, standard output and stderr of predict.py as a program."""
    module = importlib.import_module(f"{sibling}_project.predict")

    def start():
        try:
            module.run_command(module.build_compute, sibling, module.__doc__)
        except SystemExit as left:
            return left.code
    with mock.patch.object(sys, "argv", ["predict.py", *words]), contextlib.redirect_stdout(io.StringIO()) as out:
        status, said = in_process(start, shapes)
    return status, out.getvalue(), said


def read_logits(path):
    with np.load(path) as kept:
        assert kept["index"].tolist() == list(range(len(kept["index"])))
        return kept["logits"]


def write_photographs(root):
    draws = np.random.default_rng(0)
    for label, name in enumerate(("daisy", "tulip")):
        (root / name).mkdir(parents=True)
        for number in range(24):
            size = tuple(draws.integers(20, 60, 2).tolist())
            few = draws.integers(0, 200, (5, 5, 3)) + 55 * label
            Image.fromarray(few.astype(np.uint8)).resize(size).save(root / name / f"{number}.jpg")


@pytest.fixture(scope="module")
def trained(sibling, tmp_path_factory):
    """A function that returns, for each of KINDS, a finished run, its test images as files in the order of its
    predictions, and their labels."""
    @cache
    def prepare(kind):
        place = tmp_path_factory.mktemp("trained")
        words = KINDS[kind]
        if kind == "files":
            write_photographs(place / "images")
            words = (*words, f"dataset.root={place / 'images'}")
        done = sibling.call(train, str(place / "runs"), "train.epochs=1", "schedule.warmup_epochs=0", *words)
        assert done["error"] is None, done["error"]
        data = load_data(parse_config([str(done["run"] / "config.yaml")], "", ""))
        names = [data.classes[label] for label in data.test.labels]
        if kind == "files":
            return done["run"], data.test.files.tolist(), names
        files = [place / name / f"{number:03d}.png" for number, name in enumerate(names)]
        for file, pixels in zip(files, data.test.pixels, strict=True):
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels[..., 0]).save(file)
        return done["run"], [str(file) for file in files], names
    return prepare


@pytest.mark.parametrize("kind", KINDS)
def test_files_give_the_logits_of_the_evaluation(sibling, trained, kind):
    run, files, _ = trained(kind)
    errors, logits = sibling.call(predicted, str(run), files)
    assert not any(errors)
    kept = read_logits(run / "predictions.npz")
    assert np.ptp(kept) > 0.1
    np.testing.assert_allclose(logits, kept, rtol=0, atol=1e-5 * np.abs(kept).max())


# Not "scaled", where pixels differ in the last bit of fp32, of which rounding to bf16 makes more.
@pytest.mark.parametrize("kind", ["memory", "files"])
def test_files_give_the_logits_of_an_evaluation_in_bf16(sibling, trained, kind):
    run, files, _ = trained(kind)
    kept = sibling.call(evaluated, run, "hardware.precision=bf16")
    _, logits = sibling.call(predicted, str(run), files, "hardware.precision=bf16")
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, kept, rtol=0, atol=1e-5 * np.abs(kept).max())
    assert np.abs(kept - read_logits(run / "predictions.npz")).max() > 1e-4 * np.abs(kept).max()  # another precision


@pytest.mark.parametrize("kind", KINDS)
def test_files_give_the_logits_of_an_evaluation_of_several_views(sibling, trained, kind):
    run, files, _ = trained(kind)
    kept = sibling.call(evaluated, run, "evaluate.tta=mirror_translate")
    _, logits = sibling.call(predicted, str(run), files, "evaluate.tta=mirror_translate")
    np.testing.assert_allclose(logits, kept, rtol=0, atol=1e-5 * np.abs(kept).max())
    assert np.abs(kept - read_logits(run / "predictions.npz")).max() > 1e-3 * np.abs(kept).max()  # of one view


def test_the_command_tells_rows_and_the_accuracy(sibling, trained, tmp_path):
    run, files, names = trained("memory")
    for file, name in zip(files, names, strict=True):
        (tmp_path / name).mkdir(exist_ok=True)
        shutil.copy(file, tmp_path / name)
    status, out, said = sibling.call(commanded, SMALL, str(run / "best.safetensors"), str(tmp_path), "--top", "10",
                                     "train.eval_batch_size=32")
    head, *rows = [line.split(",") for line in out.splitlines()]
    assert (status, len(rows), len(head)) == (0, 60, 23)
    logits = dict(zip((Path(file).name for file in files), read_logits(run / "predictions.npz"), strict=True))
    right = 0
    for path, label, best, probability, *_, error in rows:
        expected = np.exp(logits[Path(path).name].astype(np.float64))
        assert Path(path).parent == tmp_path / label
        assert float(probability) == pytest.approx(expected.max() / expected.sum(), abs=1e-5)
        assert (best, error) == (str(expected.argmax()), "")
        right += best == label
    assert said.splitlines()[-1] == f"accuracy {100 * right / 60:.2f} % ({right} of 60 images with a label)"


def test_weights_that_do_not_fit_are_one_line(sibling, trained):
    run, files, _ = trained("memory")
    status, out, said = sibling.call(commanded, {}, str(run), files[0])
    assert (status, out) == (2, "")
    assert said.splitlines()[-1].startswith(f"error: {run}/best.safetensors does not fit this model")
