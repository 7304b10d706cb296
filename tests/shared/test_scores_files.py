"""The files of the scores and their pictures, and the short form on the terminal."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from shared.runs.records import Predictions
from shared.scores.files import write_summary
from shared.scores.pictures import MOST_CLASSES, choose_classes, describe_confusion
from shared.scores.report import format_full, format_short
from shared.scores.summary import summarise_predictions


def answer(label, answers, classes):
    """Predictions with these answers."""
    return Predictions(np.arange(len(label)), np.array(label), 3 * np.eye(classes, dtype=np.float32)[answers])


@pytest.fixture(scope="module")
def summary():
    """Twelve images: one b is taken for an a, two c's for b's; no image of d."""
    test = answer([0] * 4 + [1] * 4 + [2] * 4, [0] * 4 + [0, 1, 1, 1] + [1, 1, 2, 2], 4)
    return summarise_predictions(test, answer([0, 1, 2, 0], [0, 1, 2, 1], 4), ["a", 'b, "quoted"', "c", "d"])


def test_files(summary, tmp_path):
    files = write_summary(summary, tmp_path, "_keras")
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert [path.name for path in files] == ["scores_keras.json", "per_class_keras.csv", "confusion_keras.png",
                                             "reliability_keras.png"]
    scores = json.loads(files[0].read_text(), parse_constant=pytest.fail)
    assert {"images": 12, "validation_images": 4, "accuracy": 0.75, "top5": None}.items() <= scores.items()
    assert scores["confusions"] == [{"label": "c", "answer": 'b, "quoted"', "images": 2},
                                    {"label": 'b, "quoted"', "answer": "a", "images": 1}]
    assert sum(one["images"] for one in scores["bins"]) == sum(one["images"] for one in scores["scaled_bins"]) == 12
    assert scores["bins"][0] == {"images": 0, "confidence": None, "accuracy": None}
    with files[1].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[1] == {"name": 'b, "quoted"', "support": "4", "predicted": "5", "precision": "0.6", "recall": "0.75",
                       "f1": str(2 * 3 / 9), "taken_for": "a", "times": "1"}
    assert rows[3] == {"name": "d", "support": "0", "predicted": "0", "precision": "", "recall": "", "f1": "",
                       "taken_for": "", "times": "0"}
    for file in files[2:]:
        with Image.open(file) as picture:
            assert picture.width > 500
            assert len(picture.convert("RGB").getcolors(2**24)) > 20


def test_the_short_form(summary):
    lines = format_short(summary).splitlines()
    assert lines[0].startswith("accuracy           75.00 %, 95 % interval 46.77 to 91.11 %")
    assert lines[2].startswith("calibration error  ")
    assert " at temperature " in lines[2]
    assert lines[3] == "sets for 90 %      4.00 classes on average, 100.00 % of them hold the label"
    assert lines[4] == 'worst classes      b, "quoted" (66.67 %), c (66.67 %), a (88.89 %) by F1'
    assert lines[5] == "every set holds all classes: 4 validation images allow no smaller ones"


def test_the_full_form_has_every_class(summary):
    rows = [" ".join(line.split()) for line in format_full(summary).splitlines()]
    assert "12 test images, and 4 validation images to fit temperature and sets" in rows
    assert "c 4 2 100.00 % 50.00 % 66.67 % b, \"quoted\" (2)" in rows
    assert "d 0 0 - - - -" in rows
    assert not [row for row in rows if row.startswith("top-5")]


def test_a_model_without_mistakes(tmp_path):
    perfect = answer([0, 1], [0, 1], 2)
    found = summarise_predictions(perfect, perfect, ["dollars", r"$\no formula$"])  # names of classes are any text
    assert "worst classes      every answer is right" in format_short(found)
    assert len(write_summary(found, tmp_path)) == 4


# Hundreds of classes

def test_the_most_confused_of_many_classes_are_shown(tmp_path):
    confusion = 10 * np.eye(300, dtype=np.int64)
    confusion[200, 100], confusion[7, 8], confusion[8, 7] = 5, 9, 1
    assert choose_classes(confusion) == [7, 8, 200, 100]
    label = np.repeat(np.arange(300), 10)
    answers = label.copy()
    answers[70:79], answers[80], answers[2000:2005] = 8, 7, 100
    found = summarise_predictions(answer(label, answers, 300), None, [f"a class of long name {k}" for k in range(300)])
    assert describe_confusion(found, choose_classes(found.confusion)) == (
        "The 4 most confused of 300 classes",
        "wrong answers: 15 of 3,000 test images, 15 of them between these classes")
    write_summary(found, tmp_path)
    with Image.open(tmp_path / "confusion.png") as picture:
        assert picture.height < 1000


@pytest.mark.parametrize("mistakes", [0, 400])
def test_no_more_classes_are_shown_than_can_be_read(mistakes):
    draws = np.random.default_rng(0)
    confusion = np.eye(50, dtype=np.int64)
    np.add.at(confusion, tuple(draws.integers(0, 50, (2, mistakes))), 1)
    found = choose_classes(confusion)
    assert MOST_CLASSES - 1 <= len(set(found)) == len(found) <= MOST_CLASSES
    assert choose_classes(np.eye(MOST_CLASSES)) == list(range(MOST_CLASSES))
