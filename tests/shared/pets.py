"""A data set of made pictures of pets, and a server that answers as the hub does where it has it."""

import hashlib
import io
import json
from http.server import BaseHTTPRequestHandler
from importlib.util import find_spec

import pytest
from PIL import Image

from shared.config import Config
from shared.config.rules import validate_config

needs_library = pytest.mark.skipif(find_spec("datasets") is None,
                                   reason="the package datasets is not installed; the extra hf brings it")


def config_for(source, **dataset):
    config = Config()
    config.train.batch_size = 4
    config.dataset.name = f"hf:{source}"
    for name, value in dataset.items():
        setattr(config.dataset, name, value)
    validate_config(config)
    return config


def encode(number, kind="PNG"):
    packed = io.BytesIO()
    Image.new("RGB", (6, 4), (number, 0, 0)).save(packed, kind)
    return packed.getvalue()


def make_split(count, classes=2, first=0):
    """Pictures of different colours, of each class in turn."""
    numbers = range(first, first + count)
    return {"picture": [{"bytes": encode(number), "path": None} for number in numbers],
            "kind": [number % classes for number in numbers]}


def describe(*names):
    from datasets import ClassLabel, Image

    return {"picture": Image(), "kind": ClassLabel(names=list(names))}


PETS = "dog", "a/cat"  # not in alphabetical order, and one is no name for a folder


def hash_bytes(content):
    return hashlib.sha1(content).hexdigest()


class HubHandler(BaseHTTPRequestHandler):
    """What the hub answers for the data set owner/pets, whose Parquet files are the server's `files`."""

    def answer(self):
        path, revision = self.path.partition("?")[0], "a" * 40
        name = path.rpartition("/")[2]
        entries = [{"type": "file", "path": f"data/{file}", "size": len(content), "oid": hash_bytes(content)}
                   for file, content in self.server.files.items()]
        headers, status, content = {"X-Repo-Commit": revision}, 200, b""
        if path.startswith("/datasets/owner/pets/resolve/") and name in self.server.files:
            content = self.server.files[name]
            headers["ETag"] = f'"{hash_bytes(content)}"'
        elif path.startswith("/datasets/owner/pets/resolve/"):
            status, headers["X-Error-Code"] = 404, "EntryNotFound"
        elif path.startswith("/api/datasets/owner/pets/tree/"):
            top = [{"type": "directory", "path": "data", "oid": ""}]
            content = json.dumps(entries if name == "data" else top).encode()
        elif path.startswith("/api/datasets/owner/pets"):
            content = json.dumps({"id": "owner/pets", "sha": revision, "siblings": [
                {"rfilename": entry["path"]} for entry in entries]}).encode()
        else:
            status, headers["X-Error-Code"] = 401, "RepoNotFound"
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_GET = do_HEAD = answer  # noqa: N815

    def log_message(self, *_):
        pass
