"""The server's parts, and what keeps it from starting."""

import asyncio
import importlib.util
import io
import json
import socket
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from shared.artifacts.serve.command import parse_arguments, serve
from shared.artifacts.serve.reading import Limits, RefusedError, decode_images, read_instances, read_json
from shared.errors import UserError
from tests.shared.serving import (
    BROKEN,
    BYTES,
    CLASSES,
    PIXELS,
    PREPROCESSING,
    assert_all_end,
    draw,
    encode,
    find_port,
    needs_server,
    start,
    write_artifact,
)

pytestmark = pytest.mark.timeout(100)


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


# Answers of a server that is not started

@needs_server
def test_classes_are_ranked_by_logits_and_places_are_given_back():
    from starlette.exceptions import HTTPException
    from starlette.requests import Request

    from shared.artifacts.serve.server import Endpoints

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

    from shared.artifacts.serve import server

    monkeypatch.setattr(server, "PATIENCE", 0.01)
    endpoints = server.Endpoints(SimpleNamespace(classes=CLASSES, preprocessing=PREPROCESSING), "a",
                                 Limits(BYTES, PIXELS, 1))

    async def wait():
        async with endpoints.admit_request():
            await asyncio.Event().wait()
    with pytest.raises(HTTPException, match=r"there was no answer within 0.01 seconds") as caught:
        asyncio.run(wait())
    assert (caught.value.status_code, endpoints.admitted) == (503, 0)
