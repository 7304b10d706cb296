"""Splits, limits, labels and errors of each kind of data set; real files where they are at hand."""

import gzip
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shared.batches.data import Images, load_data
from shared.config import Config
from shared.datasets import folder
from shared.datasets.definitions import DEFINITIONS
from shared.datasets.download import locate_files
from shared.datasets.readers.cifar import read_cifar
from shared.datasets.readers.digits import read_digits
from shared.datasets.readers.fashion_mnist import read_idx
from shared.errors import UserError
from shared.machine.files import REPOSITORY

REAL = Path(os.environ.get("TEMPLATE_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
FASHION, JPEGS = REAL / "fashion-mnist", REAL / "cifar10-jpeg.tar.gz"


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


# Images

def test_images_are_read_only_and_leave_the_callers_array_writable():
    mine = np.zeros((3, 2, 2, 1), np.uint8)
    images = Images(np.arange(3), mine, None)
    with pytest.raises(ValueError, match="read-only"):
        images.pixels[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        images.take([0]).labels[0] = 1
    mine[0] = 1


def test_take_keeps_labels_with_their_images():
    images = Images(np.array([5, 6, 7]), None, np.array(["/a", "/bb", "/c"]))
    taken = images.take(np.array([2, 0]))
    assert (taken.labels.tolist(), taken.files.tolist(), len(taken)) == ([7, 5], ["/c", "/a"], 2)
    assert taken.pixels is None


# Definitions

@pytest.mark.parametrize("key", DEFINITIONS)
def test_definition_is_complete(key):
    definition = DEFINITIONS[key]
    assert definition.channels == len(definition.std) in (1, 3)
    assert definition.source
    assert definition.licence
    assert all(0 < value < 1 for value in definition.mean + definition.std)
    for item in definition.downloads:
        assert item.address.startswith("http")
        assert len(item.md5) == 32
        assert item.megabytes > 0


def test_class_counts():
    counts = {key: len(DEFINITIONS[key].classes) for key in ("digits", "fashion_mnist", "cifar10", "cifar100")}
    assert counts == {"digits": 10, "fashion_mnist": 10, "cifar10": 10, "cifar100": 100}
    fine = DEFINITIONS["cifar100"].classes
    assert fine == tuple(sorted(set(fine)))  # the official list is alphabetical
    wnids = [wnid for wnid, _ in DEFINITIONS["imagenette/160"].class_names]
    assert len(wnids) == 10
    assert wnids == sorted(wnids)


# Digits

def test_digits():
    data = load_data(config_for(val_fraction=0.1))
    assert (len(data.train), len(data.val), len(data.test)) == (1294, 144, 359)
    assert data.train.pixels.shape == (1294, 8, 8, 1)
    assert data.train.pixels.dtype == np.uint8
    assert data.train.labels.dtype == np.int64
    assert (data.train.pixels.min(), data.train.pixels.max()) == (0, 255)
    assert (data.classes, data.image_size, data.channels) == (tuple("0123456789"), 8, 1)
    balance = np.bincount(data.test.labels)
    assert balance.min() >= 34
    assert balance.max() <= 38
    development = np.concatenate([data.train.pixels, data.val.pixels]) / 255
    assert data.mean[0] == pytest.approx(development.mean(), abs=1e-4)
    assert data.std[0] == pytest.approx(development.std(), abs=1e-4)


def test_digits_pixels_are_scikit_learns():
    from sklearn.datasets import load_digits

    (train, train_labels), (test, test_labels) = read_digits(None, None)
    bunch = load_digits()
    # 16 grey levels and nought are told apart, and every image is in exactly one set.
    together = sorted((np.rint(image / 255 * 16).astype(int).ravel().tolist(), int(label))
                      for image, label in zip([*train, *test], [*train_labels, *test_labels], strict=True))
    assert together == sorted((image.astype(int).ravel().tolist(), int(label))
                              for image, label in zip(bunch.images, bunch.target, strict=True))


def test_seed_moves_validation_but_never_the_test_set():
    first, second = (load_data(config_for(seed=seed)).fingerprints() for seed in (0, 1))
    assert first["test"] == second["test"]
    assert first["data"] == second["data"]
    assert first["split"] != second["split"]
    assert load_data(config_for(seed=0)).fingerprints() == first


def test_no_image_is_in_two_sets():
    data = load_data(config_for())
    sets = [{image.tobytes() for image in images.pixels} for images in (data.train, data.val, data.test)]
    assert not sets[0] & sets[1]
    assert not sets[0] & sets[2]
    assert not sets[1] & sets[2]


def test_limits_are_stratified_and_come_before_validation():
    data = load_data(config_for(limit_train=200, limit_test=50, val_fraction=0.2))
    assert (len(data.train), len(data.val), len(data.test)) == (160, 40, 50)
    assert np.bincount(np.concatenate([data.train.labels, data.val.labels])).tolist() == [20] * 10
    assert np.bincount(data.test.labels).tolist() == [5] * 10
    assert data.fingerprints()["data"] == load_data(config_for()).fingerprints()["data"]


def test_limit_above_the_number_of_images_means_all():
    assert (load_data(config_for(limit_train=10**6, limit_test=10**6)).fingerprints()
            == load_data(config_for()).fingerprints())


@pytest.mark.parametrize(("config", "message"), [
    (config_for(batch_size=1295), "train.batch_size=1295 is more than the 1294 training images"),
    (config_for(limit_train=9, val_fraction=0.2), "no training image of class"),
    (config_for(limit_train=20, val_fraction=0.01), "none to validate with"),
])
def test_too_few_images(config, message):
    with pytest.raises(UserError, match=message):
        load_data(config)


# IDX and CIFAR files

def idx(array, kind=8):
    return bytes([0, 0, kind, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


IMAGES = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


def test_idx_gzipped_or_not(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx(IMAGES)))
    (tmp_path / "b").write_bytes(idx(IMAGES))
    for name in ("a.gz", "b.gz"):  # the second lies there unpacked
        np.testing.assert_array_equal(read_idx(tmp_path / name, (2, 3, 3)), IMAGES)


@pytest.mark.parametrize(("content", "message"), [
    (gzip.compress(idx(IMAGES, kind=13)), "not an IDX file of bytes"),
    (gzip.compress(idx(IMAGES[0])), "not an IDX file of bytes in 3"),
    (gzip.compress(b""), "starts with nothing"),
    (gzip.compress(idx(IMAGES[:1])), r"shape \(1, 3, 3\), expected \(2, 3, 3\)"),
    (gzip.compress(idx(IMAGES)[:-1]), "holds 17 bytes of values where its header says 18"),
    (gzip.compress(idx(IMAGES))[:-9], "cannot be read"),
    (b"<html>not found</html>", "cannot be read"),
], ids=["type", "dimensions", "empty", "count", "short", "truncated gz", "no gz"])
def test_damaged_idx_file_is_named(tmp_path, content, message):
    (tmp_path / "a.gz").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_idx(tmp_path / "a.gz", (2, 3, 3))
    assert str(tmp_path / "a.gz") in str(caught.value)


def test_cifar_layout_and_damage(tmp_path):
    definition = replace(DEFINITIONS["cifar10"], train_images=5, test_images=1)
    for name in definition.members:
        (tmp_path / name).write_bytes(bytes([9]) + bytes(3072))
    one_green_pixel = bytearray(3072)
    one_green_pixel[1024 + 2 * 32 + 5] = 77  # second plane, row 2, column 5
    (tmp_path / "data_batch_4.bin").write_bytes(bytes([3]) + one_green_pixel)
    (pixels, labels), _ = read_cifar(definition, tmp_path)
    assert labels.tolist() == [9, 9, 9, 3, 9]
    assert np.argwhere(pixels).tolist() == [[3, 2, 5, 1]]
    assert pixels.max() == 77
    (tmp_path / "data_batch_2.bin").write_bytes(bytes(3072))
    with pytest.raises(UserError, match=r"data_batch_2.bin has 3072 bytes where 1 images take 3073"):
        read_cifar(definition, tmp_path)
    (tmp_path / "data_batch_2.bin").write_bytes(bytes([10]) + bytes(3072))
    with pytest.raises(UserError, match=r"data_batch_2.bin holds label 10 where the last class is 9"):
        read_cifar(definition, tmp_path)


# Folders

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
    classes, listings = folder.scan_folder(root)
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
    told = capsys.readouterr().err
    assert told.startswith("2 unreadable image files left out: ")
    assert str(bad[0]) in told
    assert told.count("\n") == 1  # and no progress bar where there is no terminal


def test_stop_opens_no_file(damaged, monkeypatch, capsys):
    root, _ = damaged
    monkeypatch.setattr(folder, "decode_image", lambda _: pytest.fail("a file was opened"))
    data = load_data(config_for("image_folder", root))
    assert (len(data.train) + len(data.val), len(data.test), data.skipped) == (140, 4, ())
    assert capsys.readouterr().err == ""


def test_a_data_set_of_ones_own_that_has_no_address_needs_a_root(tmp_path, monkeypatch):
    monkeypatch.setenv("TEMPLATE_CACHE", str(tmp_path))
    own = replace(DEFINITIONS["digits"], members=("squares.npz",), folders=(".",))
    with pytest.raises(UserError, match=r"name the folder that holds squares\.npz with dataset\.root"):
        locate_files(own, "")


def test_no_framework_is_imported():
    script = ("import sys; from shared.batches.data import load_data; from shared.config import Config; "
              "load_data(Config()); "
              "print(sorted({'torch', 'torchvision', 'tensorflow', 'keras', 'lightning'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


# Real files

@pytest.mark.skipif(not FASHION.is_dir(), reason=f"no Fashion-MNIST files in {FASHION}; name the folder above it with "
                    "TEMPLATE_TEST_DATA")
def test_real_fashion_mnist():
    data = load_data(config_for("fashion_mnist", FASHION, val_fraction=0.1))
    assert (len(data.train), len(data.val), len(data.test)) == (54_000, 6_000, 10_000)
    assert data.test.pixels.shape == (10_000, 28, 28, 1)
    assert data.test.labels[:5].tolist() == [9, 2, 1, 1, 6]
    assert data.classes[data.test.labels[0]] == "Ankle boot"
    assert np.bincount(data.train.labels).tolist() == [5_400] * 10
    assert np.bincount(data.val.labels).tolist() == [600] * 10
    assert np.bincount(data.test.labels).tolist() == [1_000] * 10
    official = np.concatenate([data.train.pixels, data.val.pixels])
    assert data.mean[0] == pytest.approx(official.mean() / 255, abs=1e-4)
    assert data.std[0] == pytest.approx(official.std() / 255, abs=1e-4)


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
