"""Small archives of the official formats, published on the server on loopback."""

import hashlib
import io
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from shared.config import Config
from shared.data import download
from shared.data.definitions import DEFINITIONS, Download
from shared.data.loading import load_data
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


def config_for(name, root=""):
    config = Config()
    config.dataset.name, config.dataset.root = name, str(root)
    config.train.batch_size = 4
    return config


def contents(folder):
    """All files and folders below a folder but the lock, and nothing where there is none."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != download.LOCK)


def expect_one_line(config, *parts):
    with pytest.raises(UserError) as caught:
        load_data(config)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
