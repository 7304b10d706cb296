"""Downloads of small archives of the official formats, from a server on loopback that can misbehave."""

import gzip
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from shared.data import download
from shared.data.definitions import DEFINITIONS
from shared.data.loading import load_data
from shared.errors import UserError
from tests.shared.archives import (
    cifar10_members,
    cifar_records,
    config_for,
    contents,
    expect_one_line,
    idx,
    jpeg,
    publish,
    tgz,
)


def test_cifar10_is_downloaded_once(server, cache, cifar10, capsys):
    data = load_data(cifar10)
    assert (len(data.train), len(data.val), len(data.test)) == (90, 10, 20)
    assert data.test.pixels.shape == (20, 32, 32, 3)
    assert data.test.pixels[7, 5, 30].tolist() == [7, 8, 9]  # planes became channels
    assert data.test.labels.tolist() == [*range(10), *range(10)]
    assert server.address("cifar-10-binary.tar.gz") in capsys.readouterr().err
    assert contents(cache) == ["cifar-10-batches-bin", *sorted(cifar10_members())]  # nothing else is left

    again = load_data(cifar10)
    assert server.requests == ["cifar-10-binary.tar.gz"]
    assert capsys.readouterr().err == ""
    assert again.fingerprints() == data.fingerprints()


def test_cifar100_takes_the_fine_labels(server, cache, monkeypatch):
    files = {"cifar-100-binary/train.bin": cifar_records(200, 2, 100),
             "cifar-100-binary/test.bin": cifar_records(100, 2, 100)}
    publish(server, monkeypatch, "cifar100", {"cifar-100-binary.tar.gz": tgz(files)}, train_images=200, test_images=100)
    config = config_for("cifar100")
    config.dataset.val_fraction = 0.5
    data = load_data(config)
    assert data.test.labels.tolist() == list(range(100))
    assert data.test.pixels[5, 0, 0].tolist() == [5, 6, 7]


def test_fashion_mnist_is_downloaded_file_by_file(server, cache, monkeypatch):
    labels = np.arange(20, dtype=np.uint8) % 10
    images = np.arange(20 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(20, 28, 28)
    arrays = [images, labels, images[:10], labels[:10]]
    names = DEFINITIONS["fashion_mnist"].members
    files = {name: gzip.compress(idx(array)) for name, array in zip(names, arrays, strict=True)}
    publish(server, monkeypatch, "fashion_mnist", files, train_images=20, test_images=10)
    config = config_for("fashion_mnist")
    config.dataset.val_fraction = 0.5
    held_back = server.files.pop(names[2])
    with pytest.raises(UserError, match="404"):
        load_data(config)
    server.files[names[2]] = held_back
    data = load_data(config)
    np.testing.assert_array_equal(data.test.pixels[..., 0], images[:10])
    assert data.channels == 1
    load_data(config)
    assert sorted(server.requests) == sorted([*names, names[2]])  # what had arrived was not fetched again


def test_imagenette_is_an_image_folder_with_readable_classes(server, cache, monkeypatch):
    wnids = [wnid for wnid, _ in DEFINITIONS["imagenette/160"].class_names]
    files = {f"imagenette2-160/{part}/{wnid}/{part}_{number}.JPEG": jpeg()
             for part, count in (("train", 4), ("val", 2)) for wnid in wnids for number in range(count)}
    publish(server, monkeypatch, "imagenette/160", {"imagenette2-160.tgz": tgz(files)})
    config = config_for("imagenette")
    config.dataset.val_fraction = 0.25
    data = load_data(config)
    assert data.classes[:3] == ("tench", "English springer", "cassette player")
    assert (len(data.train), len(data.val), len(data.test)) == (30, 10, 20)  # their val tests, ours is from train
    assert all("/val/" in file for file in data.test.files)
    assert data.train.pixels is None
    assert (data.image_size, data.channels) == (224, 3)
    load_data(config)
    assert server.requests == ["imagenette2-160.tgz"]


def test_truncated_response_leaves_nothing_and_a_second_run_succeeds(server, cache, cifar10):
    server.sent = 0.5
    expect_one_line(cifar10, server.address("cifar-10-binary.tar.gz"), "dataset.root=")
    assert contents(cache) == []
    server.sent = 1.0
    assert len(load_data(cifar10).test) == 20


def test_wrong_checksum_removes_the_file(server, cache, cifar10):
    server.files["cifar-10-binary.tar.gz"] += b"\0"
    expect_one_line(cifar10, "MD5", "removed", server.address("cifar-10-binary.tar.gz"))
    assert contents(cache) == []


def test_missing_on_the_server(server, cache, cifar10):
    server.files.clear()
    expect_one_line(cifar10, "HTTP status 404", server.address("cifar-10-binary.tar.gz"), "dataset.root=")


def test_server_gone(server, cache, cifar10):
    server.server_close()
    expect_one_line(cifar10, "ConnectionError", server.address("cifar-10-binary.tar.gz"), "dataset.root=")
    assert contents(cache) == []


def test_download_killed_in_the_middle_is_not_taken_for_a_file(server, cache, cifar10):
    (cache / download.DOWNLOADING).mkdir(parents=True)
    (cache / download.DOWNLOADING / "tmp1").write_bytes(b"half")
    assert len(load_data(cifar10).test) == 20
    assert contents(cache) == ["cifar-10-batches-bin", *sorted(cifar10_members())]


def test_disk_full_is_one_line(server, cache, cifar10, monkeypatch):
    def full(*_):
        raise OSError(28, os.strerror(28))
    monkeypatch.setattr(download.os, "replace", full)
    expect_one_line(cifar10, "No space left on device", str(cache), "TEMPLATE_CACHE")


def test_cache_that_cannot_be_made_is_one_line(server, tmp_path, cifar10, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TEMPLATE_CACHE", str(tmp_path / "file" / "cache"))
    expect_one_line(cifar10, "Not a directory", "TEMPLATE_CACHE")


def test_processes_that_start_together_download_once(server, cache, cifar10):
    loaded = []
    threads = [threading.Thread(target=lambda: loaded.append(load_data(cifar10))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(data.test) for data in loaded] == [20, 20, 20]
    assert server.requests == ["cifar-10-binary.tar.gz"]


def test_complete_files_are_read_without_a_lock(server, cache, cifar10, monkeypatch):
    """So that a cache that others filled may be read-only."""
    load_data(cifar10)
    (cache / download.LOCK).unlink()
    monkeypatch.setattr(download, "obtain_files", lambda *_, **__: pytest.fail("went to obtain what is there"))
    assert len(load_data(cifar10).test) == 20
    assert not (cache / download.LOCK).exists()


def test_a_process_waits_for_another_and_says_so(server, cache, cifar10, capfd):
    """Also where the other is killed: its lock ends with it."""
    script = ("import os, sys; from pathlib import Path; from shared.data.download import lock_folder\n"
              "with lock_folder(Path(sys.argv[1])):\n    print('locked', flush=True)\n    sys.stdin.read()")
    with subprocess.Popen([sys.executable, "-c", script, str(cache)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as other:
        assert other.stdout.readline() == "locked\n"
        loaded = []
        waiting = threading.Thread(target=lambda: loaded.append(load_data(cifar10)))
        waiting.start()
        waiting.join(1)
        assert waiting.is_alive()
        assert server.requests == []
        other.kill()
        waiting.join(60)
    assert len(loaded[0].test) == 20
    assert f"waiting for another process that prepares files in {cache}" in capfd.readouterr().err


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("TEMPLATE_CACHE", raising=False)
    assert download.find_cache_folder().name == "lightning-keras-template"
    monkeypatch.setenv("TEMPLATE_CACHE", str(tmp_path))
    assert download.find_cache_folder() == tmp_path
