"""The server of exported models: really started, asked, told nonsense, and ended."""

import http.client
import json
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.shared.serving import (
    BROKEN,
    BYTES,
    PIXELS,
    Client,
    assert_all_end,
    draw,
    encode,
    find_port,
    list_processes,
    needs_server,
    start,
    write_artifact,
)


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


@pytest.mark.slow
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
