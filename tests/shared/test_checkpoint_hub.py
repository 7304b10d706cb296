"""Where a published checkpoint comes from: the hub, a mirror of it, the hub's cache, or a line that says what to do."""

import os
import shutil
import subprocess
import sys
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from shared.machine.files import REPOSITORY
from shared.machine.interpreters import list_siblings


def run_offline(sibling, home, *words):
    environment = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run([sys.executable, f"{sibling}_project/train.py", "model.pretrained=true", *words],
                          cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=200)


@pytest.mark.parametrize("sibling", list_siblings())
def test_offline_without_the_checkpoint_one_line_says_what_to_do(tmp_path, sibling):
    done = run_offline(sibling, tmp_path / "hub", f"output_dir={tmp_path / 'runs'}")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: model.pretrained=true: timm/resnet18.a1_in1k is not in the hub's cache")
    assert "HF_HUB_OFFLINE" in done.stderr
    assert "model.pretrained=FOLDER" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("endpoint", ["localhost:9", "http://[bad"])
def test_a_hub_that_cannot_be_reached_is_one_line(tmp_path, endpoint):
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_ENDPOINT": endpoint}
    done = subprocess.run([sys.executable, f"{list_siblings()[0]}_project/train.py", "model.pretrained=true"],
                          cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    *before, last = done.stderr.splitlines()
    assert before in ([], [f"asking {endpoint} for timm/resnet18.a1_in1k/config.json"])
    assert last.startswith("error: model.pretrained=true: timm/resnet18.a1_in1k is not in the hub's cache")


def fetched(folder, **environment):
    """What a program with this `environment` is told of ResNet-18's published checkpoint."""
    program = ("from shared.config import Config, ModelConfig; from shared.weights.pretrained import find_checkpoint; "
               "print(find_checkpoint(Config(model=ModelConfig(pretrained='true'))))")
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=60,
                          env=os.environ | {"HF_HOME": str(folder)} | environment)
    assert done.returncode == 0, done.stderr
    assert "source='timm/resnet18.a1_in1k'" in done.stdout
    return done.stdout


class Hub(BaseHTTPRequestHandler):
    """A mirror of the hub that has one checkpoint, in the folder `checkpoint`."""

    checkpoint: Path

    def do_HEAD(self):
        repository, _, name = self.path.partition("/resolve/main/")
        assert repository == "/timm/resnet18.a1_in1k"
        content = (self.checkpoint / name).read_bytes()
        self.send_response(200)
        for header, value in {"ETag": f'"{zlib.crc32(content):08x}"', "X-Repo-Commit": "1" * 40,
                              "Content-Length": len(content)}.items():
            self.send_header(header, value)
        self.end_headers()
        return content

    def do_GET(self):
        self.wfile.write(self.do_HEAD())

    def log_message(self, *words):
        pass


def test_a_checkpoint_is_fetched_from_a_mirror_once(checkpoint, tmp_path):
    handler = type("Handler", (Hub,), {"checkpoint": checkpoint})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        online = fetched(tmp_path / "hub", HF_ENDPOINT=f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    found = next((tmp_path / "hub").rglob("snapshots/*/model.safetensors"))
    assert found.read_bytes() == (checkpoint / "model.safetensors").read_bytes()
    assert fetched(tmp_path / "hub", HF_HUB_OFFLINE="1") == online


def test_offline_a_cached_checkpoint_is_found_by_the_hubs_own_client(checkpoint, tmp_path):
    revision = "0" * 40
    cached = tmp_path / "hub" / "hub" / "models--timm--resnet18.a1_in1k"
    (cached / "snapshots").mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(revision)
    shutil.copytree(checkpoint, cached / "snapshots" / revision)
    assert revision in fetched(tmp_path / "hub", HF_HUB_OFFLINE="1")
