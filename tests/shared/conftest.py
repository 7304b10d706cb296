"""Fixtures of several files: a server that can misbehave, a cache and a home of a test's own, made run folders."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from shared.config import Config
from shared.runs.folder import RunFolder
from tests.shared import asking
from tests.shared.archives import cifar10_members, config_for, publish, tgz
from tests.shared.fake_wandb import FakeRun
from tests.shared.run_folders import HOLD, WAIT, make_run


class Server(ThreadingHTTPServer):
    """Serves the bytes in `files`; `sent` is the share of a body that goes out before the connection closes."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.requests, self.sent = {}, [], 1.0

    def address(self, name):
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path[1:]
        self.server.requests.append(name)
        if name not in self.server.files:
            return self.send_error(404)
        body = self.server.files[name]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: int(len(body) * self.server.sent)])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TEMPLATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def cifar10(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    publish(server, monkeypatch, "cifar10", {"cifar-10-binary.tar.gz": tgz(cifar10_members())},
            train_images=100, test_images=20)
    return config_for("cifar10")


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., str]:
    def write(text, name="given.yaml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)
    return write


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    """A run folder of each sibling."""
    return [make_run(tmp_path, "lightning", wrong=(0, 1)), make_run(tmp_path, "keras", wrong=(0,))]


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No key, no W&B settings, a home of its own."""
    for name in [name for name in os.environ if name.startswith("WANDB_")] + ["NETRC"]:
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    return home


@pytest.fixture
def checkpoint(tmp_path):
    """A ResNet-18's first and last tensors in timm's format."""
    random = np.random.default_rng(0)
    tensors = {"conv1.weight": random.normal(size=(64, 3, 7, 7)), "fc.weight": random.normal(size=(1000, 512)),
               "fc.bias": random.normal(size=1000)}
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    save_file({**{name: tensor.astype(np.float32) for name, tensor in tensors.items()},
               "bn1.num_batches_tracked": np.array(3)}, folder / "model.safetensors")
    facts = {"architecture": "resnet18", "num_classes": 1000, "pretrained_cfg": {
        "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bicubic", "crop_pct": 0.9}}
    (folder / "config.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture
def held() -> Iterator[Callable[..., subprocess.Popen]]:
    """A function that lets another process hold a run folder, and do what `then` says, at most until the test ends."""
    processes = []

    def hold(folder: Path, then: str = WAIT) -> subprocess.Popen:
        process = subprocess.Popen([sys.executable, "-c", HOLD + then, str(folder)], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process
    yield hold
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, in which `run` is the run of a model that needs no framework."""
    monkeypatch.chdir(tmp_path)
    asking.make_run(tmp_path / "run")
    return tmp_path


@pytest.fixture
def asked(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable:
    """predict.py's command with the model in `run`."""
    return lambda *words, **options: asking.ask(monkeypatch, capsys, "run", *words, **options)


@pytest.fixture
def tracked(tmp_path: Path) -> Callable[..., RunFolder]:
    """A function that starts a run folder of Keras with these settings of `tracking`."""
    def make(**settings):
        config = Config(output_dir=str(tmp_path / "runs"), experiment="made")
        for name, value in settings.items():
            setattr(config.tracking, name, value)
        return RunFolder.start(config, "keras")
    return make


@pytest.fixture
def fake_wandb(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeRun]:
    """A function that puts a `FakeRun` in the place of W&B's, which raises at the calls that are named."""
    def install(*failing):
        made = FakeRun(failing)

        import wandb  # not above: a folder wandb/ of runs would make ruff sort it with ours

        def init(**words):
            made.words = words
            made.check("init")
            return made
        monkeypatch.setattr(wandb, "init", init)
        return made
    return install
