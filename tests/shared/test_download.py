"""Downloads of small archives of the official formats, from a server on loopback that can misbehave."""

import gzip
import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import textwrap
import threading
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from shared.batches.data import load_data
from shared.config import Config
from shared.datasets import download
from shared.datasets.definitions import DEFINITIONS, Download
from shared.errors import UserError


def tgz(members):
    """A gzipped tar file of {name: bytes or a ready TarInfo}."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            else:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def cifar_records(count, label_bytes=1, classes=10):
    """Records in which every pixel of image i is (i, i + 1, i + 2) and the label i modulo the classes."""
    image = np.arange(count, dtype=np.uint8)
    planes = np.repeat((image[:, None] + np.arange(3, dtype=np.uint8)), 1024, axis=1)  # (n, 3072)
    coarse = np.full((count, label_bytes - 1), 99, np.uint8)
    return np.hstack([coarse, image[:, None] % classes, planes]).tobytes()


def cifar10_members(records=20):
    names = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    return {f"cifar-10-batches-bin/{name}": cifar_records(records) for name in names}


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return head + array.tobytes()


def jpeg():
    packed = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 10, 10)).save(packed, "JPEG")
    return packed.getvalue()


def publish(server, monkeypatch, key, files, **facts):
    """Put files on the server and make them the published ones of a definition."""
    server.files.update(files)
    downloads = tuple(Download(server.address(name), hashlib.md5(body).hexdigest(), 1) for name, body in files.items())
    monkeypatch.setitem(DEFINITIONS, key, replace(DEFINITIONS[key], downloads=downloads, **facts))


@pytest.fixture
def cifar10(server, cache, monkeypatch):
    publish(server, monkeypatch, "cifar10", {"cifar-10-binary.tar.gz": tgz(cifar10_members())},
            train_images=100, test_images=20)
    return config_for("cifar10")


def config_for(name, root=""):
    config = Config()
    config.dataset.name, config.dataset.root = name, str(root)
    config.train.batch_size = 4
    return config


def contents(folder):
    """All files and folders below a folder but the lock, and nothing where there is none."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != download.LOCK)


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


def expect_one_line(config, *parts):
    with pytest.raises(UserError) as caught:
        load_data(config)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


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


def test_extraction_killed_in_the_middle(server, cache, cifar10):
    """A process that is really killed (SIGKILL, so that no clean-up runs) after it extracted two of six members."""
    archive = cache / "cifar-10-binary.tar.gz"
    cache.mkdir()
    archive.write_bytes(server.files["cifar-10-binary.tar.gz"])
    script = textwrap.dedent("""
        import os, signal, sys, tarfile
        from pathlib import Path
        from shared.datasets import download
        from shared.datasets.definitions import DEFINITIONS
        extract, done = tarfile.TarFile.extract, []
        def extract_two(*args, **options):
            if len(done) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            done.append(extract(*args, **options))
        tarfile.TarFile.extract = extract_two
        download.unpack_archive(Path(sys.argv[1]), DEFINITIONS["cifar10"], is_ours=True)
    """)
    killed = subprocess.run([sys.executable, "-c", script, str(archive)], check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert sum(name.endswith(".bin") for name in contents(cache)) == 2
    assert not (cache / "cifar-10-batches-bin").exists()

    assert len(load_data(cifar10).test) == 20
    assert server.requests == []  # the archive was whole
    assert contents(cache) == ["cifar-10-batches-bin", *sorted(cifar10_members())]


def link(name, target):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


@pytest.mark.parametrize("evil", [
    {"../evil.bin": b"x"},
    {"cifar-10-batches-bin/../../../evil.bin": b"x"},
    {"cifar-10-batches-bin/out": link("cifar-10-batches-bin/out", "../../.."),
     "cifar-10-batches-bin/out/evil.bin": b"x"},
    {"cifar-10-batches-bin/alias.bin": link("cifar-10-batches-bin/alias.bin", "test_batch.bin")},
], ids=["parent", "parent from within", "through a link", "any link"])
def test_member_that_would_leave_the_folder(server, cache, cifar10, monkeypatch, tmp_path, evil):
    publish(server, monkeypatch, "cifar10", {"cifar-10-binary.tar.gz": tgz(cifar10_members() | evil)})
    expect_one_line(cifar10, "cannot be unpacked")
    assert contents(tmp_path) == ["cache"]


def test_damaged_archive_in_the_cache_is_deleted(server, cache, cifar10):
    cache.mkdir()
    whole = server.files["cifar-10-binary.tar.gz"]
    (cache / "cifar-10-binary.tar.gz").write_bytes(whole[: len(whole) // 2])
    expect_one_line(cifar10, "cifar-10-binary.tar.gz", "it was deleted; run again")
    assert contents(cache) == []
    assert len(load_data(cifar10).test) == 20


def test_user_archive_is_unpacked_and_kept(server, tmp_path, cifar10):
    own = tmp_path / "own"
    own.mkdir()
    (own / "cifar-10-binary.tar.gz").write_bytes(server.files["cifar-10-binary.tar.gz"])
    assert len(load_data(config_for("cifar10", own)).test) == 20
    assert contents(own) == ["cifar-10-batches-bin", *sorted(cifar10_members()), "cifar-10-binary.tar.gz"]
    assert server.requests == []


@pytest.mark.parametrize("damage", [
    lambda whole: whole[:-20],
    lambda whole: whole[:-8] + bytes(4) + whole[-4:],  # only gzip's checksum, after the end of the last member, tells
], ids=["truncated", "changed"])
def test_damaged_user_archive_is_left_alone(server, tmp_path, cifar10, damage):
    own = tmp_path / "own"
    own.mkdir()
    (own / "cifar-10-binary.tar.gz").write_bytes(damage(server.files["cifar-10-binary.tar.gz"]))
    expect_one_line(config_for("cifar10", own), "delete it and get", server.address("cifar-10-binary.tar.gz"))
    assert contents(own) == ["cifar-10-binary.tar.gz"]


@pytest.mark.parametrize("below", ["", "cifar-10-batches-bin"])
def test_root_with_the_files_is_read_and_never_filled(server, tmp_path, cifar10, below):
    own = tmp_path / "own"
    for name, content in cifar10_members().items():
        (own / below).mkdir(parents=True, exist_ok=True)
        (own / below / name.rpartition("/")[2]).write_bytes(content)
    assert len(load_data(config_for("cifar10", own)).test) == 20
    lost = own / below / "data_batch_3.bin"
    lost.unlink()
    expect_one_line(config_for("cifar10", own), str(lost), server.address("cifar-10-binary.tar.gz"))
    assert server.requests == []


def test_file_lost_from_the_cache_is_named(server, cache, cifar10):
    load_data(cifar10)
    (cache / "cifar-10-batches-bin" / "data_batch_3.bin").unlink()
    expect_one_line(cifar10, "data_batch_3.bin", "delete the folder")
    assert len(server.requests) == 1


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
    script = ("import os, sys; from pathlib import Path; from shared.datasets.download import lock_folder\n"
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
