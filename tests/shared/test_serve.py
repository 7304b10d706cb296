"""The server of exported models: really started, asked, told nonsense, and ended."""

import asyncio
import base64
import http.client
import importlib.util
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shared.artifacts.description import DESCRIPTION, KIND
from shared.batches.preprocessing import Preprocessing
from shared.errors import UserError
from shared.serve.__main__ import parse_arguments, serve
from shared.serve.reading import Limits, RefusedError, decode_images, read_instances, read_json

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


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder, port = write_artifact(tmp_path_factory.mktemp("serve") / "colours"), find_port()
    process = start(folder, "--port", str(port), "--max-megabytes", str(BYTES / 1e6), "--max-megapixels",
                    str(PIXELS / 1e6), "--batch", "4", "--wait-ms", "20")
    here = Client(process, port)
    try:
        here.wait()
        yield here
    finally:
        for each in list_processes(process.pid):
            os.kill(each, signal.SIGKILL)
        process.communicate()


pytestmark = pytest.mark.timeout(100)
BROKEN = draw((1, 2, 3))[:40]


# What is answered

@needs_server
def test_an_image_file(client):
    status, answer = client.send_file(draw((50, 100, 80)))
    weights = np.exp([5, 10, 8])  # a tenth of the means
    expected = weights / weights.sum()
    assert status == 200
    assert answer["class"] == "green"
    assert answer["probability"] == pytest.approx(expected[1], rel=1e-5)
    assert [(found["class"], found["probability"]) for found in answer["top"]] == [
        ("green", pytest.approx(expected[1], rel=1e-5)), ("blue", pytest.approx(expected[2], rel=1e-5)),
        ("red", pytest.approx(expected[0], rel=1e-4))]


@needs_server
def test_base64_and_the_number_of_classes_in_the_answer(client):
    file = draw((50, 100, 80), form="JPEG")
    status, answer = client.send_json({"image": encode(file)}, "/predict?top=2")
    assert status == 200
    assert answer["top"] == client.send_file(file)[1]["top"][:2]


@needs_server
def test_the_form_of_tensorflow_serving(client):
    files = [draw((100, 50, 0)), draw((0, 30, 60))]
    instances = [{"b64": encode(files[0])}, {"image_bytes": {"b64": encode(files[1])}}]
    status, answer = client.send_json({"signature_name": "serving_bytes", "instances": instances},
                                      "/v1/models/colours:predict")
    assert status == 200
    assert [found["logits"] for found in answer["predictions"]] == [
        pytest.approx([10, 5, 0], abs=1e-5), pytest.approx([0, 3, 6], abs=1e-5)]
    assert [sum(found["probabilities"]) for found in answer["predictions"]] == pytest.approx([1, 1])
    assert client.ask("GET", "/v1/models/colours") == (200, {"model_version_status": [
        {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}]})


@needs_server
def test_each_of_many_clients_gets_its_own_answer_while_others_send_nonsense(client):
    def ask(number: int) -> tuple[int, Any]:
        if number % 5 == 4:
            return client.send_file(BROKEN)
        return client.send_json({"instances": [{"b64": encode(draw((number, 0, 0)))}]}, "/v1/models/colours:predict")
    with ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(ask, range(100)))
    for number, (status, answer) in enumerate(answers):
        if number % 5 == 4:
            assert status == 400
        else:
            assert answer["predictions"][0]["logits"][0] == pytest.approx(number / 10, abs=1e-5)


# What is refused

@needs_server
@pytest.mark.parametrize(("content", "kind", "status", "told"), [
    (b"hello", "text/plain", 415, "the content is 'text/plain'; send an image file as multipart/form-data"),
    (b"hello", "", 415, "the content is ''"),
    (b"hello", "application/json", 400, "the request is not valid JSON"),
    (b"\xff\xfe\x00", "application/json", 400, "the request is not valid JSON"),
    (b"[" * 100_000, "application/json", 400, "the request is not valid JSON"),
    (b"[1]", "application/json", 400, "the request holds a JSON list; expected an object"),
    (b"{}", "application/json", 400, 'expected {"image": "..."}'),
    (b'{"image": "@@@"}', "application/json", 400, "an image is not valid base64"),
    (b'{"image": 7}', "application/json", 400, "an image is not valid base64"),
    (b'{"image": ""}', "application/json", 400, "an image cannot be read (empty file)"),
    (json.dumps({"image": encode(b"hello")}).encode(), "application/json", 400,
     "an image cannot be read (no known image format)"),
    (json.dumps({"image": encode(BROKEN)}).encode(), "application/json", 400, "an image cannot be read ("),
    (json.dumps({"image": encode(draw((0, 0, 0), (301, 300)))}).encode(), "application/json", 413,
     "the request has too many pixels, 301 x 300 in one image"),
    (b"{" + b" " * BYTES, "application/json", 413, "the request has more than 200,000 bytes"),
    (b"hello", "multipart/form-data", 400, "Missing boundary"),
    (b"--X--\r\n", "multipart/form-data; boundary=X", 400, "the form has 0 files; expected one image file"),
])
def test_what_cannot_be_answered_is_refused_in_one_line(client, content, kind, status, told):
    found, answer = client.ask("POST", "/predict", content, kind)
    assert (found, list(answer)) == (status, ["error"])
    assert answer["error"].startswith(told)
    assert "\n" not in answer["error"]
    assert client.send_file(draw((0, 0, 9)))[1]["class"] == "blue"


@needs_server
@pytest.mark.parametrize("top", ["0", "4", "-1", "x", "1" * 5000])
def test_a_number_of_classes_that_cannot_be(client, top):
    status, answer = client.send_file(draw((0, 0, 9)), f"/predict?top={top}")
    assert status == 400
    assert answer["error"].endswith("expected 1 to 3")


@needs_server
@pytest.mark.parametrize(("method", "path", "status"), [
    ("GET", "/predict", 405), ("GET", "/v1/models/other", 404), ("POST", "/v1/models/other:predict", 404)])
def test_an_address_that_there_is_not(client, method, path, status):
    found, answer = client.ask(method, path)
    assert (found, list(answer)) == (status, ["error"])


@needs_server
def test_a_client_that_hangs_up_in_the_middle(client):
    with socket.create_connection(("127.0.0.1", client.port)) as line:
        line.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                     b"Content-Length: 1000\r\n\r\n{")
    assert client.send_file(draw((0, 9, 0)))[1]["class"] == "green"


@needs_server
def test_a_model_whose_process_is_killed_is_started_again(client):
    worker, = (each for each in list_processes(client.process.pid)
               if b"spawn_main" in Path(f"/proc/{each}/cmdline").read_bytes())
    os.kill(worker, signal.SIGKILL)
    assert client.process.stderr.readline().startswith("serving ")
    assert client.process.stderr.readline() == "the process with the model has ended and is started again\n"
    assert client.ask("GET", "/health")[0] == 503
    time.sleep(1)  # until then the queue may hand a request to the process that was killed
    assert client.send_file(draw((0, 9, 0)))[1]["class"] == "green"


@needs_server
def test_sigterm_ends_all_its_processes(client):
    """The last test of the server."""
    before = list_processes(client.process.pid)
    assert len(before) > 2
    client.process.send_signal(signal.SIGTERM)
    assert client.process.wait(20) == 143
    assert_all_end(client.process.pid)
    assert client.process.stderr.read() in ("", f"serving keras-onnx, 3 classes, at http://127.0.0.1:{client.port}\n")


@needs_server
@pytest.mark.parametrize(("number", "to_all", "status"), [
    (signal.SIGTERM, True, 143), (signal.SIGINT, True, 130), (signal.SIGTERM, False, 143), (signal.SIGKILL, False, -9)])
def test_a_signal_during_a_request(tmp_path, number, to_all, status):
    port = find_port()
    process = start(write_artifact(tmp_path / "a"), "--port", str(port), "--wait-ms", "1000")  # so long a request takes
    try:
        client = Client(process, port)
        client.wait()
        with ThreadPoolExecutor(1) as other:
            answer = other.submit(client.send_file, draw((0, 9, 0)))
            time.sleep(0.3)
            assert not answer.done()
            (os.killpg if to_all else os.kill)(process.pid, number)
            if number == signal.SIGKILL:
                with pytest.raises((OSError, http.client.HTTPException)):
                    answer.result(10)
            else:
                assert answer.result(10)[1]["class"] == "green"
        assert process.wait(10) == status
        assert_all_end(process.pid)
    finally:
        for each in list_processes(process.pid):
            os.kill(each, signal.SIGKILL)
        process.communicate()


@needs_server
def test_classes_are_ranked_by_logits_and_places_are_given_back():
    from starlette.exceptions import HTTPException
    from starlette.requests import Request

    from shared.serve.server import Endpoints

    endpoints = Endpoints(SimpleNamespace(classes=CLASSES, preprocessing=PREPROCESSING), "a", Limits(BYTES, PIXELS, 1))
    asked = asyncio.Event()

    async def compute(files):
        await asked.wait()
        return [(np.array([1, 3, 2], np.float32), np.full(3, 1 / 3, np.float32))]
    endpoints.compute_answers = compute

    async def receive():
        return {"type": "http.request", "body": json.dumps({"image": encode(BROKEN)}).encode()}

    def answer():
        return endpoints.answer_image(Request({"type": "http", "query_string": b"", "headers": [
            (b"content-type", b"application/json")]}, receive))

    async def ask_two_at_once():
        first = asyncio.create_task(answer())
        await asyncio.sleep(0)
        with pytest.raises(HTTPException, match=r"1 requests are being answered; try again later") as caught:
            await answer()
        asked.set()
        return caught.value.status_code, await first, await answer()
    status, *answers = asyncio.run(ask_two_at_once())
    assert status == 503
    for found in answers:
        assert [each["class"] for each in json.loads(found.body)["top"]] == ["green", "blue", "red"]


@needs_server
def test_a_model_that_does_not_answer(monkeypatch):
    from starlette.exceptions import HTTPException

    from shared.serve import server

    monkeypatch.setattr(server, "PATIENCE", 0.01)
    endpoints = server.Endpoints(SimpleNamespace(classes=CLASSES, preprocessing=PREPROCESSING), "a",
                                 Limits(BYTES, PIXELS, 1))

    async def wait():
        async with endpoints.admit_request():
            await asyncio.Event().wait()
    with pytest.raises(HTTPException, match=r"there was no answer within 0.01 seconds") as caught:
        asyncio.run(wait())
    assert (caught.value.status_code, endpoints.admitted) == (503, 0)


# Starting it

@needs_server
def test_a_model_that_cannot_be_loaded(tmp_path):
    process = start(write_artifact(tmp_path / "a", b"no model"), "--port", str(find_port()))
    _, err = process.communicate(timeout=60)
    line, = err.splitlines()
    assert line.startswith(f"error: {tmp_path / 'a' / 'model.onnx'} cannot be loaded")
    assert process.returncode == 2
    assert_all_end(process.pid)


@needs_server
def test_a_port_in_use(tmp_path):
    folder = write_artifact(tmp_path / "a")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} of 127.0.0.1 cannot be had .Address already in use.; choose"):
            serve(parse_arguments([str(folder), "--port", str(port)]))


def test_a_foreign_folder(tmp_path):
    with pytest.raises(UserError, match=r"is no exported model of this repository"):
        serve(parse_arguments([str(tmp_path)]))


@needs_server
def test_a_name_that_is_no_address(tmp_path):
    with pytest.raises(UserError, match=r"--name is 'a/b'; expected letters"):
        serve(parse_arguments([str(write_artifact(tmp_path / "a")), "--name", "a/b"]))


@pytest.mark.parametrize(("words", "told"), [
    (["--port", "80"], "--port is 80; expected 1024 to 65535"), (["--batch", "0"], "--batch is 0; expected 1 or more"),
    (["--wait-ms", "-1"], "--wait-ms is -1.0; expected 0 to 1000"), (["--port", "x"], "argument --port: invalid int"),
    (["--host", "example.org"], "argument --host: invalid choice: 'example.org'"),
    (["--max-megapixels", "0"], "--max-megapixels is 0.0; expected more than 0")])
def test_an_option_that_cannot_be(words, told):
    with pytest.raises(UserError) as caught:
        parse_arguments(["a", *words])
    assert str(caught.value).startswith(told)


def test_it_listens_to_this_machine_alone_unless_told_otherwise():
    assert parse_arguments(["a"]).host == "127.0.0.1"


@pytest.mark.parametrize("missing", ["litserve", "python_multipart"])
def test_the_extra_is_named(tmp_path, monkeypatch, missing):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else found("json"))
    with pytest.raises(UserError, match=r"is not installed here; install the extra serve: pip install -e "):
        serve(parse_arguments([str(write_artifact(tmp_path / "a", b"model"))]))


# What is read

def test_images_are_prepared_as_in_evaluation():
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (13, 21, 3), np.uint8)
    turned = Image.fromarray(pixels)
    turned.getexif()[0x0112] = 6  # to be shown turned by 90 degrees
    turned.save(file, "PNG", exif=turned.getexif())
    [found] = decode_images([file.getvalue()], PREPROCESSING, PIXELS)
    expected = PREPROCESSING.scale(Image.fromarray(np.rot90(pixels, -1)))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_every_format_of_the_documentation(form):
    [found] = decode_images([draw((250, 128, 3), form=form)], PREPROCESSING, PIXELS)
    np.testing.assert_allclose(found.reshape(-1, 3), [[250, 128, 3]] * 64, atol=4)


@pytest.mark.parametrize("form", ["ICO", "EPS"])
def test_other_formats_are_not_even_opened(form):
    with pytest.raises(RefusedError, match=r"^an image cannot be read .no known image format") as caught:
        decode_images([draw((250, 128, 3), form=form)], PREPROCESSING, PIXELS)
    assert caught.value.status == 400


def test_the_pixels_of_a_request_are_counted_together():
    files = [draw((0, 0, 0), (100, 100))] * 3
    assert len(decode_images(files, PREPROCESSING, 30_000)) == 3
    with pytest.raises(RefusedError, match=r"too many pixels"):
        decode_images(files, PREPROCESSING, 29_999)


def test_an_image_too_large_for_any_limit():
    header = (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (100_000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00")
    file = header + zlib.crc32(header[12:]).to_bytes(4, "big") + b"\x00\x00\x00\x00IDAT"
    with pytest.raises(RefusedError) as caught:
        decode_images([file], PREPROCESSING, PIXELS)
    assert caught.value.status == 413


@pytest.mark.parametrize("instances", [None, [], [1], ["aGk="], [{}], [{"b64": "aGk=", "more": 1}],
                                       [{"other": {"b64": "aGk="}}], [{"b64": "aGk="}] * 129])
def test_instances_that_are_none(instances):
    with pytest.raises(RefusedError) as caught:
        read_instances({"instances": instances})
    assert caught.value.status == 400


def test_another_signature_is_refused():
    with pytest.raises(RefusedError, match=r"signature_name is 'serving_default'; here it is 'serving_bytes'"):
        read_instances(read_json(b'{"signature_name": "serving_default", "instances": [{"b64": "aGk="}]}'))
