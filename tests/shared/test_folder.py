"""Image folders: which files are found, how they are split, what is said about folders that do not fit."""

import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from shared.config import Config
from shared.data import folder
from shared.data.loading import load_data
from shared.errors import UserError
from shared.machine.files import REPOSITORY

JPEGS = Path(os.environ.get("TEMPLATE_TEST_DATA") or REPOSITORY.parent / "shared" / "data") / "cifar10-jpeg.tar.gz"


def config_for(name="digits", root="", batch_size=4, seed=0, **dataset):
    config = Config(seed=seed)
    config.train.batch_size = batch_size
    config.dataset = replace(config.dataset, name=name, root=str(root), **dataset)
    return config


@pytest.fixture
def pictures(tmp_path):
    """Makes an image folder of {path below the root: number of files}; every file has its own colour."""
    def make(layout, root=tmp_path / "pictures"):
        made = 0
        for place, count in layout.items():
            (root / place).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                Image.new("RGB", (6, 4), (made % 256, made // 256, 0)).save(root / place / f"{number:03}.png")
                made += 1
        return root
    return make


def both(split, count):
    return {f"{split}/cat": count, f"{split}/dog": count}


def names(images, root):
    return [os.path.relpath(file, root) for file in images.files.tolist()]


def test_train_and_test_folders(pictures):
    root = pictures(both("train", 10) | both("test", 3))
    data = load_data(config_for("image_folder", root, val_fraction=0.2))
    assert (len(data.train), len(data.val), len(data.test)) == (16, 4, 6)
    assert names(data.test, root) == [f"test/{name}/00{n}.png" for name in ("cat", "dog") for n in range(3)]
    assert data.test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert all(name.startswith("train/") for name in names(data.train, root) + names(data.val, root))
    assert not set(names(data.train, root)) & set(names(data.val, root))
    assert (data.classes, data.image_size, data.channels) == (("cat", "dog"), 224, 3)
    assert data.mean == (0.485, 0.456, 0.406)
    assert data.train.files.dtype.kind == "U"


def test_train_and_val_folders_test_on_val(pictures):
    root = pictures(both("train", 10) | both("val", 3))
    data = load_data(config_for("image_folder", root, val_fraction=0.2))
    assert (len(data.train), len(data.val), len(data.test)) == (16, 4, 6)
    assert all(name.startswith("val/") for name in names(data.test, root))


def test_three_folders_are_taken_as_given(pictures):
    root = pictures(both("train", 5) | both("val", 2) | both("test", 3))
    data = load_data(config_for("image_folder", root, val_fraction=0.5, limit_train=4))
    assert (len(data.train), len(data.val), len(data.test)) == (4, 4, 6)
    assert all(name.startswith("val/") for name in names(data.val, root))


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_class_folders_alone_are_split_by_fractions(pictures, prefix):
    root = pictures({f"{prefix}cat": 20, f"{prefix}dog": 20})
    loaded = [load_data(config_for("image_folder", root, val_fraction=0.25, test_fraction=0.1, seed=seed))
              for seed in (0, 1)]
    assert [(len(data.train), len(data.val), len(data.test)) for data in loaded] == [(27, 9, 4)] * 2
    assert names(loaded[0].test, root) == names(loaded[1].test, root)  # not the seed's to choose
    assert names(loaded[0].val, root) != names(loaded[1].val, root)
    with pytest.raises(UserError, match="test_fraction=0"):
        load_data(config_for("image_folder", root, test_fraction=0.0))


def test_nested_files_count_and_others_do_not(pictures):
    root = pictures({"cat": 1, "cat/deep/er": 1, "cat/.hidden": 1, ".git": 1, "dog": 1})
    (root / "cat" / "notes.txt").write_text("a cat")
    (root / "cat" / "._000.png").write_bytes(b"what macOS leaves behind")
    (root / "dog" / "000.png").rename(root / "dog" / "UPPER.PNG")
    classes, listings, _ = folder.scan_folder(root)
    assert classes == ("cat", "dog")
    files, labels = listings["train"]
    assert [os.path.relpath(file, root) for file in files] == ["cat/000.png", "cat/deep/er/000.png", "dog/UPPER.PNG"]
    assert labels.tolist() == [0, 0, 1]


def test_links_are_followed_but_not_in_circles(pictures, tmp_path):
    elsewhere = pictures({"": 2}, tmp_path / "elsewhere")
    root = pictures({"cat": 1})
    (root / "dog").symlink_to(elsewhere)
    (root / "cat" / "again").symlink_to(root / "cat")
    assert folder.scan_folder(root)[1]["train"][1].tolist() == [0, 1, 1]


def test_imagenet_mini_in_its_own_folder(pictures, tmp_path):
    pictures({"train/n01440764": 4, "train/n01443537": 4, "val/n01440764": 1, "val/n01443537": 1},
             tmp_path / "imagenet-mini")
    data = load_data(config_for("imagenet_mini", tmp_path, val_fraction=0.25))
    assert data.classes == ("tench", "goldfish")
    assert data.folders == ("n01440764", "n01443537")
    assert (len(data.train), len(data.val), len(data.test)) == (6, 2, 2)


def test_imagenet_mini_says_where_it_comes_from(tmp_path):
    with pytest.raises(UserError, match=r"train does not exist; get it from https://www.kaggle.com"):
        load_data(config_for("imagenet_mini", tmp_path))


@pytest.mark.parametrize(("sizes", "absent"), [
    ((5,) * 20, (11, 10)), ((2,) * 12, (10, 10)), ((9, 9, 9), (1, 0)), ((10, 10, 10), (0, 0)), ((1, 1, 9, 9), (2, 2)),
    ((40, 2), (1, 0))])
def test_classes_without_an_image_in_a_part_are_counted(pictures, sizes, absent):
    """By default a tenth is set apart to test, and a tenth of the others to validate."""
    layout = {f"c{label:02}": size for label, size in enumerate(sizes)}
    loaded = [load_data(config_for("image_folder", pictures(layout), seed=seed)) for seed in range(4)]
    for data in loaded:
        lacking = [len(sizes) - len(set(images.labels.tolist())) for images in (data.val, data.test)]
        assert lacking == list(absent)
        assert set(data.train.labels.tolist()) == set(range(len(sizes)))
        parts = [f"no {name} image of {number} of {len(sizes)} classes ("
                 for name, number in zip(("validation", "test"), absent, strict=True) if number]
        assert len(data.remarks) == bool(parts)
        assert all(part in data.remarks[0] for part in parts)
    assert len({data.fingerprints()["test"] for data in loaded}) == 1


def test_the_seed_chooses_the_classes_that_lack_images(pictures):
    root = pictures({f"c{label:02}": 5 for label in range(20)})
    chosen = [set(load_data(config_for("image_folder", root, seed=seed)).val.labels.tolist()) for seed in range(6)]
    assert len({tuple(sorted(labels)) for labels in chosen}) > 1
    assert max(max(labels) for labels in chosen) > 10


@pytest.mark.parametrize(("layout", "message"), [
    ({"train/cat": 1, "train/dog": 1, "test/cat": 1}, "test has no folder for class 'dog'"),
    (both("train", 1) | both("test", 1) | {"test/cow": 1}, "test has a class 'cow'"),
    ({"train/cat": 1, "train/dog": 0}, "dog holds no images"),
    (both("train", 1) | {"val/cat": 1, "val/dog": 0}, "val/dog holds no images"),
    ({"": 3}, "holds no class folders"),
    (both("val", 1), "no train folder"),
    ({"cat/more": 3}, "holds a single class folder, 'cat'; dataset.root has to name the folder that holds"),
    (both("Train", 1) | both("Test", 1), "Test looks like a split; rename it, since splits are called train, val"),
    (both("train", 1) | both("valid", 1), "valid looks like a split"),
], ids=["missing class", "extra class", "empty class", "empty class in val", "no classes", "no train", "one class",
        "capitals", "valid"])
def test_folder_that_does_not_fit(pictures, layout, message):
    with pytest.raises(UserError, match=message):
        load_data(config_for("image_folder", pictures(layout)))


def test_classes_may_be_called_as_splits_are(pictures):
    assert load_data(config_for("image_folder", pictures({"valid": 9, "void": 9}))).classes == ("valid", "void")


def test_folder_that_is_missing(tmp_path):
    with pytest.raises(UserError, match="absent: No such file"):
        load_data(config_for("image_folder", tmp_path / "absent"))


def test_fingerprints_of_a_folder_do_not_depend_on_where_it_lies(pictures, tmp_path):
    layout = both("train", 10) | both("test", 3)
    here, there = pictures(layout, tmp_path / "here"), pictures(layout, tmp_path / "far" / "away")
    first, second = (load_data(config_for("image_folder", root)) for root in (here, there))
    assert first.fingerprints() == second.fingerprints()

    (there / "test" / "cat" / "000.png").write_bytes(b"another size")
    changed = load_data(config_for("image_folder", there)).fingerprints()
    assert changed["data"] != first.fingerprints()["data"]
    (there / "test" / "cat" / "000.png").rename(there / "test" / "cat" / "other.png")
    assert load_data(config_for("image_folder", there)).fingerprints()["test"] != changed["test"]


@pytest.fixture
def damaged(pictures):
    """A folder in which a training, and the only other test image of a class, cannot be read."""
    root = pictures(both("train", 70) | both("test", 2))
    bad = [root / "test" / "dog" / "001.png", root / "train" / "cat" / "065.png"]
    bad[0].write_bytes(b"")
    bad[1].write_text("no picture")
    return root, bad


def test_skip_leaves_unreadable_files_out_and_says_so(damaged, capsys):
    root, bad = damaged
    data = load_data(config_for("image_folder", root, on_bad_image="skip"))
    assert sorted(data.skipped) == [str(file) for file in bad]
    assert len(data.train) + len(data.val) == 139
    assert not set(data.skipped) & set(data.train.files.tolist() + data.val.files.tolist())
    assert names(data.test, root) == ["test/cat/000.png", "test/cat/001.png", "test/dog/000.png"]
    assert capsys.readouterr().err == ""  # and no progress bar where there is no terminal
    data.say_remarks(leader=False)
    assert capsys.readouterr().err == ""
    data.say_remarks()
    told = capsys.readouterr().err
    assert told.startswith("2 unreadable image files left out: ")
    assert str(bad[0]) in told
    assert told.count("\n") == 1


def test_what_was_left_out_is_told_before_the_error_that_it_leads_to(pictures, capsys):
    root = pictures(both("train", 4) | both("test", 2))
    for number in range(4):
        (root / "train" / "dog" / f"{number:03}.png").write_text("no picture")
    with pytest.raises(UserError, match="no training image of class 'dog' is left"):
        load_data(config_for("image_folder", root, on_bad_image="skip"))
    assert capsys.readouterr().err.startswith("4 unreadable image files left out: ")


def test_stop_decodes_no_file(damaged, monkeypatch, capsys):
    root, _ = damaged
    monkeypatch.setattr(folder, "decode_image", lambda _: pytest.fail("a file was decoded"))
    data = load_data(config_for("image_folder", root))
    assert (len(data.train) + len(data.val), len(data.test), data.skipped) == (140, 4, ())
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not JPEGS.is_file(), reason=f"no {JPEGS}; name its folder with TEMPLATE_TEST_DATA")
def test_real_cifar10_jpeg_folder(tmp_path):
    wanted = {f"train/{name}/{number:04}.jpg" for name in ("airplane", "automobile") for number in range(6)}
    with tarfile.open(JPEGS) as tar:
        for member in tar:  # in the archive's order, so that only its beginning is unpacked
            if member.name in wanted:
                tar.extract(member, tmp_path, filter="data")
                wanted.remove(member.name)
            if not wanted:
                break
    data = load_data(config_for("image_folder", tmp_path, val_fraction=0.2, test_fraction=0.2, on_bad_image="skip"))
    assert (data.classes, data.skipped) == (("airplane", "automobile"), ())
    assert (len(data.train), len(data.val), len(data.test)) == (8, 2, 2)
