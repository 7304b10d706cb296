"""Which images are named, in which order, and that no more of them are read ahead than are soon needed."""

import os
import threading
import weakref
from itertools import count

import numpy as np
import pytest
from PIL import Image

from shared.artifacts.prediction.answers import predict_items
from shared.artifacts.prediction.model import Model
from shared.artifacts.prediction.reading import TOGETHER, read_ahead
from shared.artifacts.prediction.sources import Item, find_sources, walk_folder
from shared.errors import UserError

CLASSES = ("cat", "dog", "tench", "café")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(*files):
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).touch()
        return tmp_path
    return make


def found(*words, classes=CLASSES):
    sources, _ = find_sources(list(words), classes)
    return [(item.path, item.label) for source in sources for item in source.list_items()]


def test_files_folders_and_patterns_come_as_they_are_named(here):
    here("b.png", "a.png", "more/x.jpg", "more/deep/y.JPEG", "more/notes.txt", "more/.hidden.png", "more/@eaDir/x.jpg")
    assert found("b.png", "more", "[ab].png", "b.png") == [
        (name, "") for name in ("b.png", "more/deep/y.JPEG", "more/x.jpg", "a.png", "b.png", "b.png")]
    assert found("m*/*.jp*g") == [("more/x.jpg", "")]  # patterns look at capitals, as in a shell
    here("[ab].png")
    assert found("[ab].png") == [("[ab].png", "")]  # a file where there is one of that name


def test_a_folder_is_ordered_by_path(here):
    root = here("f/b/1.png", "f/b-c/1.png", "f/b.png", "f/a/z/1.png", "f/a/2.png", "f/10.png", "f/9.png")
    names = [item.path for item in walk_folder("f")]
    assert names == sorted(str(path.relative_to(root)) for path in root.rglob("*.png"))


def test_links_in_a_circle_end_and_broken_ones_are_named(here):
    root = here("f/a/1.png")
    (root / "f" / "a" / "up").symlink_to(root / "f")
    (root / "f" / "gone.png").symlink_to(root / "nothing.png")
    (root / "f" / "self.png").symlink_to("self.png")
    assert [(item.path, item.error) for item in walk_folder("f")] == [
        ("f/a/1.png", ""), ("f/gone.png", ""), ("f/self.png", "")]  # reading the last two tells what is wrong
    assert found("f/gone.png") == [("f/gone.png", "")]


def test_a_folder_that_cannot_be_read_is_one_item_and_the_others_follow(here, monkeypatch):
    here("f/a/1.png", "f/b/1.png")
    scan = os.scandir

    def refuse(path):
        if path == "f/a":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)
    monkeypatch.setattr(os, "scandir", refuse)
    assert [(item.path, item.error) for item in walk_folder("f")] == [("f/a", "Permission denied"), ("f/b/1.png", "")]


def test_subfolders_called_like_classes_are_labels(here):
    here("t/cat/1.png", "t/cat/deep/dog/2.png", "t/n01440764/3.png", "t/cafe\u0301/4.png", "t/5.png")
    assert found("t") == [("t/5.png", ""), ("t/cafe\u0301/4.png", "café"), ("t/cat/1.png", "cat"),
                          ("t/cat/deep/dog/2.png", "cat"), ("t/n01440764/3.png", "tench")]


@pytest.mark.parametrize(("other", "remarks"), [
    ("t/bird/2.png", ["t gives no labels, since its sub-folder 'bird' is called like none of the classes"]),
    ("t/dog/2.png", []),
])
def test_a_subfolder_that_is_no_class_is_told(here, other, remarks):
    here("t/cat/1.png", other)
    sources, said = find_sources(["t"], CLASSES)
    assert said == remarks
    assert bool(sources[0].labels) == (not remarks)


def test_subfolders_that_are_no_classes_need_no_line(here):
    here("t/train/1.png", "t/test/1.png")
    assert find_sources(["t"], CLASSES)[1] == []


@pytest.mark.parametrize(("word", "hint"), [
    ("nowhere.png", "nowhere.png does not exist, and no file matches it"), ("*.gif", r"\*.gif does not exist"),
    ("x" * 5000, "does not exist"), ("empty", "empty holds no images at any depth")])
def test_a_word_that_names_nothing_is_refused(here, word, hint):
    here("empty/notes.txt")
    with pytest.raises(UserError, match=hint):
        find_sources([word], CLASSES)


def test_standard_input_is_read_once(here):
    with pytest.raises(UserError, match="named twice"):
        find_sources(["-", "-"], CLASSES)


# Reading ahead

def test_results_come_in_order_from_several_threads():
    both = threading.Barrier(2)

    def read(number):
        if number in (0, TOGETHER):  # the first of two tasks, each of which waits for the other
            both.wait(timeout=30)
        return number * number
    assert list(read_ahead(range(50), read, threads=2, ahead=16)) == [number * number for number in range(50)]


def test_reading_is_a_bounded_number_ahead_of_what_is_taken():
    begun = []
    results = read_ahead(count(), lambda number: begun.append(number) or number, threads=3, ahead=20)
    for number in range(200):
        assert next(results) == number
        assert len(begun) <= number + 20 + 2 * TOGETHER
    results.close()  # of endless items; threads end


def test_an_error_in_what_is_listed_reaches_whoever_reads():
    def items():
        yield 1
        raise UserError("no names")
    with pytest.raises(UserError, match="no names"):
        list(read_ahead(items(), str, threads=1, ahead=4))


class Pixels(np.ndarray):
    """An array that can be counted while it lives."""


def test_images_in_memory_do_not_grow_with_their_number():
    alive, most, batches = set(), [], []

    class Counting:
        def scale(self, image):
            pixels = np.zeros((2, 2, 1), np.uint8).view(Pixels)
            key = object()
            alive.add(key)
            weakref.finalize(pixels, alive.discard, key)
            most.append(len(alive))
            return pixels
    image = Image.new("L", (2, 2))
    items = (Item("", image=image) for _ in range(3000))
    model = Model(("a", "b"), Counting(), batch_size=32, threads=2, load=None)
    done = sum(1 for _ in predict_items(model, lambda images: batches.append(len(images)) or np.zeros((len(images), 2)),
                                        items))
    assert done == 3000
    assert batches == [32] * 93 + [24]
    assert max(most) <= 3 * 32 + 2 * TOGETHER
    assert not alive
