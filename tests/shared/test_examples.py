"""The test images that trackers show with a run's answers."""

import numpy as np
from PIL import Image

from shared.data.images import Images
from shared.data.preprocessing import Preprocessing
from shared.runs.records import Predictions
from shared.training.examples import collect_examples

CLASSES = ("cat", "dog", "fox")


def preprocess(size, channels):
    return Preprocessing(size, channels, 1.0, "bilinear", True, (0.5,) * channels, (0.5,) * channels)


def answer(label, wrong=()):
    """Logits of 3 for the answer and 0 for others, wrong at these places."""
    given = np.where(np.isin(np.arange(len(label)), wrong), (label + 1) % 3, label)
    return Predictions(np.arange(len(label)), label, 3 * np.eye(3, dtype=np.float32)[given])


def test_they_are_the_same_images_for_every_run_and_of_each_class_its_share():
    label = np.repeat([0, 1, 2], [100, 60, 40])
    images = Images(label, np.arange(200, dtype=np.uint8).reshape(-1, 1, 1, 1).repeat(4, 1).repeat(4, 2), None)
    first, second = (collect_examples(answer(label, wrong), images, preprocess(4, 1), CLASSES, 48)
                     for wrong in ((), range(200)))
    assert len(first) == 48
    assert [example.number for example in first] == [example.number for example in second]
    assert [sum(example.label == name for example in first) for name in CLASSES] == [24, 14, 10]
    for right, wrong in zip(first, second, strict=True):
        assert right.image.getpixel((0, 0)) == wrong.image.getpixel((0, 0)) == right.number
        assert (right.answer, right.is_right) == (right.label, True)
        assert (wrong.is_right, CLASSES.index(wrong.answer)) == (False, (CLASSES.index(wrong.label) + 1) % 3)
        assert abs(right.probability - np.exp(3) / (np.exp(3) + 2)) < 1e-12


def test_files_are_shown_as_the_model_sees_them(tmp_path):
    for name, colour in (("a", (255, 0, 0)), ("b", (0, 255, 0))):
        Image.new("RGB", (30, 20), colour).save(tmp_path / f"{name}.png")
    images = Images(np.array([1, 0]), None, np.array([str(tmp_path / "a.png"), str(tmp_path / "b.png")]))
    found = collect_examples(answer(np.array([1, 0])), images, preprocess(8, 3), CLASSES, 48)
    assert [(example.label, example.image.size, example.image.getpixel((0, 0))) for example in found] == [
        ("dog", (8, 8), (255, 0, 0)), ("cat", (8, 8), (0, 255, 0))]
    assert collect_examples(answer(np.array([1, 0])), images, preprocess(8, 3), CLASSES, 0) == []
