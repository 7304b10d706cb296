"""The same image in two parts: found by content, told, left out or refused, the same in every process."""

import shutil

import numpy as np
import pytest

from shared.config import Config, parse_config
from shared.data import duplicates
from shared.data.copies import settle_copies
from shared.data.duplicates import digest_files, digest_pixels, find_copies
from shared.data.images import Images
from shared.data.loading import load_data
from shared.errors import UserError
from tests.shared.pictures import config_for, make_pictures, names

LAYOUT = {f"{split}/{name}": 6 for split in ("train", "val", "test") for name in ("cat", "dog")}


def make_copies(root, pairs):
    """A folder with three parts, where each of `pairs` is (a file, where a copy of it is written)."""
    make_pictures(root, LAYOUT)
    for source, target in pairs:
        shutil.copy(root / source, root / target)
    return root


# Policies

IN_TRAIN = [("test/cat/000.png", "train/cat/x.png"), ("test/dog/003.png", "train/dog/y.png")]
IN_ALL = [("test/cat/001.png", "val/cat/x.png"), ("test/cat/001.png", "train/cat/x.png"),
          ("val/dog/002.png", "train/dog/y.png")]


@pytest.mark.parametrize(("pairs", "counts", "first", "dropped"), [
    (IN_TRAIN, "2 of train in test", "train/cat/x.png, the same as test/cat/000.png", (12, 12, 12)),
    ([("test/dog/000.png", "val/dog/z.png")], "1 of val in test", "val/dog/z.png, the same as test/dog/000.png",
     (12, 12, 12)),
    (IN_ALL, "1 of val in test, 1 of train in test, 1 of train in val",
     "val/cat/x.png, the same as test/cat/001.png", (12, 12, 12)),
    # The one that stays is the test's, wherever it was first, and one of two copies in test stays with it.
    ([("train/cat/000.png", "test/cat/x.png"), ("train/cat/000.png", "test/cat/y.png")], "1 of train in test",
     "train/cat/000.png, the same as test/cat/x.png", (11, 12, 14)),
])
def test_copies_in_two_parts(tmp_path, pairs, counts, first, dropped):
    root = make_copies(tmp_path, pairs)
    told = f"the same images, byte for byte, are in two parts: {counts}; the first is {first}"
    kept = load_data(config_for(root))
    assert kept.remarks == (f"{told}; dataset.on_duplicate=drop helps",)
    assert len(kept.train) + len(kept.val) + len(kept.test) == 36 + len(pairs)

    data = load_data(config_for(root, on_duplicate="drop"))
    assert (len(data.train), len(data.val), len(data.test)) == dropped
    assert data.remarks == (f"{told}; these {36 + len(pairs) - sum(dropped)} are left out",)
    assert data.fingerprints()["test"] == kept.fingerprints()["test"]
    assert data.fingerprints()["data"] == kept.fingerprints()["data"]
    assert data.fingerprints()["split"] != kept.fingerprints()["split"]
    assert load_data(config_for(root, on_duplicate="drop")).fingerprints() == data.fingerprints()
    contents = [{(root / name).read_bytes() for name in names(part, root)}
                for part in (data.train, data.val, data.test)]
    assert sum(map(len, contents)) == len(set.union(*contents))

    with pytest.raises(UserError) as caught:
        load_data(config_for(root, on_duplicate="stop"))
    assert str(caught.value) == f"{told}; remove one of each, or set dataset.on_duplicate=drop"


@pytest.mark.parametrize("policy", ["warn", "drop", "stop"])
def test_without_copies_no_policy_changes_anything(tmp_path, policy):
    root = make_pictures(tmp_path, LAYOUT)
    data = load_data(config_for(root, on_duplicate=policy))
    assert data.fingerprints() == load_data(config_for(root)).fingerprints()
    assert data.remarks == ()


def test_copies_within_a_part_are_nobodys_business_unless_their_classes_differ(tmp_path):
    root = make_copies(tmp_path, [("train/cat/000.png", "train/cat/x.png"), ("test/dog/001.png", "test/dog/y.png")])
    data = load_data(config_for(root, on_duplicate="stop"))
    assert (len(data.train), len(data.test), data.remarks) == (13, 13, ())


@pytest.mark.parametrize(("pairs", "told"), [
    ([("train/cat/000.png", "train/dog/x.png")], "1 image is there under another class too; the first is "
     "train/dog/x.png, the same as train/cat/000.png"),
    ([("test/cat/000.png", "train/dog/x.png"), ("test/cat/000.png", "train/dog/y.png")],
     "2 images are there under another class too; the first is train/dog/x.png, the same as test/cat/000.png"),
    ([("val/dog/000.png", "val/cat/x.png"), ("test/cat/000.png", "test/dog/x.png")],
     "2 images are there under another class too; the first is test/dog/x.png, the same as test/cat/000.png"),
])
def test_one_image_under_two_classes(tmp_path, pairs, told):
    data = load_data(config_for(make_copies(tmp_path, pairs)))
    assert data.remarks[0] == f"{told}; one of the classes is wrong"


def test_a_split_of_one_folder_may_part_two_copies(tmp_path):
    root = make_pictures(tmp_path, {"cat": 20, "dog": 20})
    for number in range(20):
        shutil.copy(root / "cat" / f"{number:03}.png", root / "cat" / f"again{number:03}.png")
    plain = load_data(config_for(root))
    assert " of train in test" in plain.remarks[0]
    data = load_data(config_for(root, on_duplicate="drop"))
    assert len(data.train) < len(plain.train)
    assert names(data.test, root) == names(plain.test, root)


def test_what_is_left_may_be_too_little(tmp_path, capsys):
    root = make_copies(tmp_path, [(f"train/dog/{number:03}.png", f"test/dog/x{number}.png") for number in range(6)])
    with pytest.raises(UserError, match="no training image of class 'dog' is left"):
        load_data(config_for(root, on_duplicate="drop"))
    assert "6 of train in test" in capsys.readouterr().err


# Arrays

def images_of(values, labels):
    return Images(np.array(labels), np.uint8(values).reshape(-1, 1, 1, 1) * np.ones((1, 2, 2, 3), np.uint8), None)


@pytest.mark.parametrize("kind", [np.ascontiguousarray, np.asfortranarray, lambda pixels: np.repeat(pixels, 2, 0)[::2]])
def test_arrays_are_told_by_their_pixels(kind):
    parts = {"train": images_of([1, 2, 3, 4], [0, 1, 0, 1]), "val": images_of([5, 2], [0, 1]),
             "test": images_of([4, 9], [1, 0])}
    parts = {name: Images(part.labels, kind(part.pixels), None) for name, part in parts.items()}
    kept, told = settle_copies(parts, "warn", "")
    assert told == ["the same images, byte for byte, are in two parts: 1 of train in val, 1 of train in test; the "
                    "first is number 1 of train, the same as number 1 of val; dataset.on_duplicate=drop helps"]
    assert kept == parts
    left, _ = settle_copies(parts, "drop", "")
    assert {name: part.pixels[:, 0, 0, 0].tolist() for name, part in left.items()} == {
        "train": [1, 3], "val": [5, 2], "test": [4, 9]}
    assert left["train"].labels.tolist() == [0, 0]


def test_the_digits_have_none():
    config = Config()
    config.dataset.on_duplicate = "stop"
    assert load_data(config).remarks == ()


# Keys of contents

def test_the_first_of_each_content_is_no_copy():
    found = list(find_copies({"a": [7, 8, 7], "b": [9, 8], "c": [7, 9, 9]}))
    assert found == [("a", 2, "a", 0), ("b", 1, "a", 1), ("c", 0, "a", 0), ("c", 1, "b", 0), ("c", 2, "b", 0)]


def test_pixels_of_another_place_are_other_pixels():
    pixels = np.zeros((3, 2, 2, 1), np.uint8)
    pixels[0, 0, 1], pixels[1, 1, 0], pixels[2, 0, 1] = 1, 1, 1
    keys = digest_pixels(pixels)
    assert keys[0] == keys[2] != keys[1]


LONG = bytes(range(256)) * 40  # 10 KiB


@pytest.mark.parametrize(("contents", "equal"), [
    ([b"abc", b"abd", b"abc"], {(0, 2)}),
    ([LONG, b"x" + LONG[1:], LONG], {(0, 2)}),              # alike at the end, not as a whole
    ([LONG, LONG[:-1] + b"x", LONG[:-1]], set()),
    ([LONG[:4096], LONG[:4096], LONG[:4097]], {(0, 1)}),    # as long as what is read of an end
    ([b"", b"", b"x"], set()),                              # an empty file is no image, and equals none
])
def test_files_are_told_by_their_bytes(tmp_path, contents, equal):
    files = [tmp_path / str(number) for number in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    keys = digest_files(list(map(str, files)), np.array(list(map(len, contents))))
    assert {(i, j) for i in range(len(keys)) for j in range(i + 1, len(keys)) if keys[i] == keys[j]} == equal


def test_only_what_ties_is_read(tmp_path, monkeypatch):
    contents = {"alone": b"a" * 9000, "one": LONG, "two": b"y" + LONG[1:], "other": LONG[1:] + b"z"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    read = []
    for name in ("read_end", "read_whole"):
        original = getattr(duplicates, name)
        monkeypatch.setattr(duplicates, name, lambda file, name=name, original=original: read.append(
            (name, file.rpartition("/")[2])) or original(file))
    digest_files([str(tmp_path / name) for name in contents], np.array(list(map(len, contents.values()))))
    assert sorted(read) == [("read_end", "one"), ("read_end", "other"), ("read_end", "two"), ("read_whole", "one"),
                            ("read_whole", "two")]


def test_a_file_that_cannot_be_read_equals_none(tmp_path):
    (tmp_path / "a").write_bytes(b"same")
    keys = digest_files([str(tmp_path / "a"), str(tmp_path / "absent"), str(tmp_path / "absent")], np.array([4, 4, 4]))
    assert len(set(keys)) == 3


def test_a_wrong_word_is_refused():
    with pytest.raises(UserError, match=r"dataset\.on_duplicate='ignore' is not one of warn, drop, stop"):
        parse_config(["dataset.on_duplicate=ignore"], "", "")


@pytest.mark.parametrize(("policy", "left"), [("warn", 13), ("drop", 12), ("stop", None)])
def test_among_many_files_only_drop_and_stop_look(tmp_path, monkeypatch, policy, left):
    monkeypatch.setattr("shared.data.copies.MOST_FILES", 30)
    root = make_copies(tmp_path, IN_TRAIN[:1])
    if left is None:
        with pytest.raises(UserError, match="two parts: 1 of train in test"):
            load_data(config_for(root, on_duplicate=policy))
        return
    data = load_data(config_for(root, on_duplicate=policy))
    assert len(data.train) == left
    assert data.remarks[0].startswith("copies are not looked for among 37 files" if policy == "warn" else "the same")
