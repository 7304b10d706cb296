"""A server of an exported model, and a client of it."""

import base64
import http.client
import importlib.util
import io
import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from shared.artifacts.description import DESCRIPTION, KIND
from shared.data.preprocessing import Preprocessing

CLASSES = ("red", "green", "blue")
PREPROCESSING = Preprocessing(8, 3, 1.0, "bilinear", True, (0.5,) * 3, (0.5,) * 3)
BYTES, PIXELS = 200_000, 90_000  # the limits that the server is started with

needs_server = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("litserve", "onnx", "onnxruntime", "python_multipart"))),
    reason="the extras serve and export are not installed")


def write_artifact(folder: Path, model: bytes | None = None) -> Path:
    """An exported model whose logits are a tenth of the mean of each colour."""
    folder.mkdir(parents=True)
    if model is None:
        from onnx import TensorProto, helper

        images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 8, 8, 3])
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3])
                   for name in ("logits", "probabilities")]
        nodes = [helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
                 helper.make_node("ReduceMean", ["pixels", "axes"], ["means"], keepdims=0),
                 helper.make_node("Mul", ["means", "tenth"], ["logits"]),
                 helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1)]
        constants = [helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
                     helper.make_tensor("tenth", TensorProto.FLOAT, [1], [0.1])]
        graph = helper.make_graph(nodes, "colours", [images], outputs, constants)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        model = made.SerializeToString()
    (folder / "model.onnx").write_bytes(model)
    (folder / DESCRIPTION).write_text(json.dumps({
        "kind": KIND, "maker": "keras", "format": "onnx", "quantisation": "", "input": "uint8",
        "classes": CLASSES, "preprocessing": PREPROCESSING.to_dict(), "checks": {"passed": True}}))
    return folder


def draw(colour: tuple[int, int, int], size: tuple[int, int] = (20, 10), form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, form)
    return file.getvalue()


def encode(file: bytes) -> str:
    return base64.b64encode(file).decode()


def find_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


def start(folder: Path, *options: str) -> subprocess.Popen:
    """The server in a session of its own, by which its processes can be told."""
    return subprocess.Popen([sys.executable, "-m", "shared.serve", str(folder), "--threads", "1", *options],
                            stderr=subprocess.PIPE, text=True, start_new_session=True)


def list_processes(session: int) -> list[int]:
    """The processes of a session, but for those that have ended and are not yet waited for."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, its = (place / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(its) == session and state != "Z":
            found.append(int(place.name))
    return found


def assert_all_end(session: int, seconds: float = 5) -> None:
    """Python's own tracker of resources outlives the process that started it by a moment."""
    end = time.monotonic() + seconds
    while (left := list_processes(session)) and time.monotonic() < end:
        time.sleep(0.02)
    assert left == []


class Client:
    def __init__(self, process: subprocess.Popen, port: int):
        self.process, self.port = process, port

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> tuple[int, Any]:
        """Status and body of the answer, which is JSON but for that of /health."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, {"Content-Type": kind} if kind else {})
            answer = connection.getresponse()
            content = answer.read()
            return answer.status, content.decode() if path == "/health" else json.loads(content)
        finally:
            connection.close()

    def send_file(self, file: bytes, path: str = "/predict") -> tuple[int, Any]:
        body = (b'--X\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n'
                b"Content-Type: application/octet-stream\r\n\r\n" + file + b"\r\n--X--\r\n")
        return self.ask("POST", path, body, "multipart/form-data; boundary=X")

    def send_json(self, content: Any, path: str = "/predict") -> tuple[int, Any]:
        return self.ask("POST", path, json.dumps(content).encode(), "application/json")

    def wait(self) -> None:
        while self.process.poll() is None:
            try:
                if self.ask("GET", "/health") == (200, "ok"):
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise AssertionError(self.process.stderr.read())


BROKEN = draw((1, 2, 3))[:40]
