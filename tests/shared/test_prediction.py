"""The command line of predict.py with a model that needs no framework: rows, mistakes, exit statuses."""

import csv
import gc
import json
import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.artifacts.prediction import answers, rows
from shared.errors import UserError
from shared.machine.interpreters import list_siblings
from tests.shared.asking import BESIDE, CERTAIN, CLASSES, ask, build_compute, make_image

ENTRIES = [f"{sibling}_project/predict.py" for sibling in list_siblings()]


def test_the_softmax_is_as_computed_by_hand():
    around = [math.exp(-distance * distance) for distance in range(-5, 6)]
    assert pytest.approx(1 / sum(around), abs=1e-7) == CERTAIN
    assert pytest.approx(math.exp(-1) / sum(around), abs=1e-7) == BESIDE


# Rows

def test_rows_of_csv(here, asked):
    for digit in (3, 5):
        make_image(here / f"{digit}.png", digit)
    status, out, err = asked("5.png", "3.png", "5.png")
    assert (status, err) == (0, [])
    assert out[0] == "path,class,probability,error"
    assert [line.split(",")[:2] for line in out[1:]] == [["5.png", "5"], ["3.png", "3"], ["5.png", "5"]]
    assert [float(line.split(",")[2]) for line in out[1:]] == pytest.approx([CERTAIN] * 3, abs=1e-4)


def test_the_most_probable_classes_and_all_logits(here, asked):
    make_image(here / "a.png", 4)
    status, out, _ = asked("a.png", "--top", "3", "--logits", "--format", "jsonl")
    row = json.loads(out[0])
    assert (status, len(out)) == (0, 1)
    assert list(row) == ["path", "class", "probability", "class_2", "probability_2", "class_3", "probability_3",
                         *(f"logit_{name}" for name in CLASSES), "error"]
    assert [row[name] for name in ("class", "class_2", "class_3")] == ["4", "3", "5"]  # of equals the first class
    assert row["probability_2"] == row["probability_3"] == pytest.approx(BESIDE, abs=1e-4)
    assert [row[f"logit_{name}"] for name in CLASSES] == [-16, -9, -4, -1, 0, -1, -4, -9, -16, -25]
    assert row["error"] is None


def test_classes_whose_probability_is_zero_keep_the_order_of_their_logits():
    prediction = answers.Prediction("a.png", "", ("a", "b", "c"), np.array([-2000, -1000, 0], np.float32))
    assert prediction.rank(3) == [("c", 1), ("b", 0), ("a", 0)]


def test_logits_keep_each_bit():
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    prediction = answers.Prediction("a.png", "", tuple(map(str, range(1000))), values)
    row = rows.Layout(prediction.classes, logits=True).arrange(prediction)
    assert np.array_equal(np.array(row[3:-1], np.float32), values)


def read_table(path):
    """Columns and rows of a file of any of the formats."""
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        found = parquet.read_table(path).to_pylist()
    elif path.suffix == ".jsonl":
        found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    else:
        with path.open(encoding="utf-8", newline="") as file:
            found = [{name: value or None for name, value in row.items()} for row in csv.DictReader(file)]
    return list(found[0]), found


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl", "out.PARQUET", "out.parquet"])
def test_a_file_of_each_format_holds_the_same(here, asked, name):
    make_image(here / "t" / "3" / 'comma, "quote".png', 3)
    make_image(here / "t" / "3" / "return\r.png", 3)
    make_image(here / "t" / "5" / "späße\n2.png", 6)
    (here / "t" / "5" / "x.png").write_text("an apple")
    status, out, err = asked("t", "--out", name)
    assert (status, out) == (1, [])
    assert err == ["accuracy 66.67 % (2 of 3 images with a label)",
                   "1 of 4 images have no answer; the column error says why"]
    (here / name).rename(here / name.lower())
    columns, found = read_table(here / name.lower())
    assert columns == ["path", "label", "class", "probability", "error"]
    assert [[row[column] for column in ("path", "label", "class", "error")] for row in found] == [
        ['t/3/comma, "quote".png', "3", "3", None], ["t/3/return\r.png", "3", "3", None],
        ["t/5/späße\n2.png", "5", "6", None],
        ["t/5/x.png", "5", None, "no known image format"]]
    assert [row["probability"] and float(row["probability"]) for row in found] == [
        *[pytest.approx(CERTAIN, abs=1e-4)] * 3, None]
    assert sorted(os.listdir(here)) == sorted([name.lower(), "run", "t"])


def test_a_parquet_file_that_is_given_up_is_one_line(here, asked, monkeypatch):
    pytest.importorskip("pyarrow")
    make_image(here / "a.png", 1)
    (here / "b.png").touch()
    complaints = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    status, _, err = asked("a.png", "b.png", "--out", "out.parquet", "--stop-on-bad")
    gc.collect()
    assert (status, len(err), complaints) == (2, 1, [])


def test_parquet_is_written_in_groups(here, asked, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(rows, "GROUP", 2)
    make_image(here / "a.png", 1)
    assert asked(*["a.png"] * 5, "--out", "out.parquet")[0] == 0
    facts = parquet.ParquetFile("out.parquet").metadata
    assert [facts.row_group(number).num_rows for number in range(facts.num_row_groups)] == [2, 2, 1]


def test_an_old_file_stays_whole_where_work_stops(here, asked):
    (here / "out.csv").write_text("old")
    make_image(here / "a.png", 1)
    (here / "b.png").touch()
    status, _, err = asked("a.png", "b.png", "--out", "out.csv", "--stop-on-bad")
    assert status == 2
    assert err == ["error: b.png: empty file; without --stop-on-bad, it becomes a row with its error"]
    assert (here / "out.csv").read_text() == "old"
    assert not (here / "out.csv.unfinished").exists()
    assert asked("a.png", "--out", "out.csv")[0] == 0
    assert (here / "out.csv").read_text().count("\n") == 2


# Exported models

@pytest.fixture
def exported(here, monkeypatch):
    """An exported model of the digits, answered for by a stand-in of its runtime."""
    from shared.artifacts import description, runtimes
    from shared.config import Config
    from shared.data.preprocessing import Preprocessing

    seen = Preprocessing.of_config(Config())
    folder = here / "run" / "exports" / "keras-onnx"
    folder.mkdir(parents=True)
    (folder / "model.onnx").touch()
    (folder / description.DESCRIPTION).write_text(json.dumps({
        "kind": description.KIND, "format": "onnx", "maker": "keras", "quantisation": "", "input": "uint8",
        "classes": CLASSES, "preprocessing": seen.to_dict(), "checks": {"passed": True}}), encoding="utf-8")
    asked_for = []

    def load(artifact, threads):
        asked_for.append((artifact.name, threads))
        compute = build_compute(seen)
        return lambda images: (compute(images), None)
    monkeypatch.setattr(runtimes, "load_artifact", load)
    return folder, asked_for


@pytest.mark.parametrize("name", ["", "model.onnx"])
def test_an_exported_model_answers_without_the_sibling(here, exported, monkeypatch, capsys, name):
    folder, asked_for = exported
    make_image(here / "a.png", 3)
    status, out, err = ask(monkeypatch, capsys, folder / name, "a.png", "hardware.threads=2", build=None)
    assert (status, err, asked_for) == (0, [], [("keras-onnx", 2)])
    assert out[1].startswith("a.png,3,0.5641")


def test_a_key_that_means_nothing_to_an_exported_model_is_one_line(here, exported, monkeypatch, capsys):
    make_image(here / "a.png", 3)
    status, _, err = ask(monkeypatch, capsys, exported[0], "a.png", "hardware.precision=bf16")
    assert (status, len(err)) == (2, 1)
    assert "hardware.precision has no effect on an exported model" in err[0]


# In a program

def test_a_program_hands_over_names_images_and_arrays(here):
    name = make_image(here / "a.png", 3)
    grey, colour = np.full((8, 8, 1), 100, np.uint8), np.full((8, 8, 3), 120, np.uint8)
    given = [name, here / "a.png", Image.new("RGB", (8, 8), (80, 80, 80)), grey, colour, "nowhere.png"]
    found = list(answers.predict_images(build_compute, here / "run", given, ["train.eval_batch_size=4"]))
    assert [row.class_name for row in found] == ["3", "3", "4", "5", "6", ""]
    assert [row.path for row in found] == [name, name, "", "", "", "nowhere.png"]
    assert found[0].logits.tolist() == [-9, -4, -1, 0, -1, -4, -9, -16, -25, -36]
    assert found[0].rank(2) == [("3", found[0].probability), ("2", pytest.approx(BESIDE, abs=1e-4))]
    assert (found[5].error, found[5].logits, found[5].rank(2)) == ("No such file or directory", None, [])
    assert math.isnan(found[5].probability)


@pytest.mark.parametrize(("image", "hint"), [
    (np.zeros((8, 8, 4), np.uint8), r"a uint8 of shape \(8, 8, 4\)"), (np.zeros((8, 8, 3)), "a float64 of shape"),
    (np.zeros((8, 8), np.uint8), r"\(8, 8\)"), (b"bytes", "a bytes;")])
def test_what_is_no_image_is_refused(here, image, hint):
    with pytest.raises(UserError, match=hint):
        list(answers.predict_images(build_compute, here / "run", [image], []))


def test_an_image_of_a_camera_held_upright_is_answered_alike_as_file_and_image(here):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees to see it
    half = Image.new("L", (16, 8))
    half.paste(200, (0, 0, 8, 8))
    half.save(here / "a.png", exif=exif)

    def keep(trained):
        return lambda images: images.reshape(len(images), -1)[:, ::7].astype(np.float32)
    with Image.open(here / "a.png") as image:
        file, memory = answers.predict_images(keep, here / "run", [here / "a.png", image], [])
    assert np.ptp(file.logits) > 0
    assert file.logits.tolist() == memory.logits.tolist()


@pytest.mark.parametrize("image", ["a.png", Path("a.png"), Image.new("L", (8, 8))])
def test_a_single_image_is_refused_at_the_call(here, image):
    with pytest.raises(UserError, match="give a list"):
        answers.predict_images(build_compute, here / "run", image, [])


def test_a_missing_run_is_told_at_the_call(here):
    with pytest.raises(UserError, match="nowhere does not exist"):
        answers.predict_images(build_compute, "nowhere", [], [])
