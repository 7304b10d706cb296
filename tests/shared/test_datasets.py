"""Splits, limits, labels and errors of data sets in arrays; real files where they are at hand."""

import gzip
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shared.config import Config
from shared.data.definitions import DEFINITIONS
from shared.data.loading import Images, load_data
from shared.data.readers.cifar import read_cifar
from shared.data.readers.digits import read_digits
from shared.data.readers.fashion_mnist import read_idx
from shared.errors import UserError
from shared.machine.files import REPOSITORY

REAL = Path(os.environ.get("TEMPLATE_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
FASHION = REAL / "fashion-mnist"


def config_for(name="digits", root="", batch_size=4, seed=0, **dataset):
    config = Config(seed=seed)
    config.train.batch_size = batch_size
    config.dataset = replace(config.dataset, name=name, root=str(root), **dataset)
    return config


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


def test_no_framework_is_imported():
    script = ("import sys; from shared.data.loading import load_data; from shared.config import Config; "
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
