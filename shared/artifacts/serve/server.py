"""LitServe with an exported model behind it: https://lightning.ai/docs/litserve

Two processes do the work. The web process reads requests and decodes their images, so that a broken image is refused
before it can spoil a batch. The worker has the model and answers batches.
"""

import asyncio
import logging
import multiprocessing
import os
import re
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from queue import Empty
from threading import Thread
from typing import Any

import litserve
import numpy as np
from litserve.loops.simple_loops import BatchedLoop
from litserve.server import LitServer
from litserve.specs.base import LitSpec
from litserve.utils import LitAPIStatus, ResponseBufferItem, WorkerSetupStatus
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from shared.artifacts.description import Artifact, read_artifact
from shared.artifacts.runtimes import load_artifact
from shared.artifacts.serve.reading import (
    Limits,
    RefusedError,
    decode_images,
    read_image_field,
    read_instances,
    read_json,
)
from shared.errors import UserError, extract_user_message
from shared.machine.console import say

TOP = 5  # classes in an answer, unless ?top= asks for another number
PATIENCE = 30  # seconds after which a request is given up
DECODERS = ThreadPoolExecutor(4)  # not as many as there are cores, so that memory has a limit that can be told
GRACE = 3  # seconds that requests have to be answered after the server was told to stop


class ModelProcess(litserve.LitAPI):
    """The model in its own process: images (n, S, S, C) to a pair of logits and probabilities (K,) for each."""

    def __init__(self, folder: Path, threads: int, **options: Any):
        super().__init__(loop=PatientLoop(), **options)
        self.folder, self.threads = folder, threads

    def setup(self, device: str) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):  # they may reach all processes; the first one ends this one
            signal.signal(each, signal.SIG_IGN)
        end_with_parent(multiprocessing.parent_process().pid)
        try:
            self.model = load_artifact(read_artifact(self.folder), self.threads)
        except Exception as error:
            if line := extract_user_message(error):
                print(f"error: {line}", file=sys.stderr, flush=True)
                logging.disable()  # LitServe would add a traceback
            raise

    def decode_request(self, request: np.ndarray) -> np.ndarray:
        return request

    def predict(self, images: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        return list(zip(*self.model(images), strict=True))

    def encode_response(self, output: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        return output


class PatientLoop(BatchedLoop):
    """LitServe's batches, whose wait begins with their first request.

    LitServe's own loop asks the queue a thousand times a second while there are no requests.
    """

    def get_batch_requests(self, lit_api: ModelProcess, request_queue: Any, transport: Any) -> tuple[list, list]:
        """(queue, id, image) of the requests of a batch, and (queue, id) of those that have waited too long."""
        try:
            # Not for ever: the queue would hand a request to a worker that was killed while it waited.
            waiting = [request_queue.get(timeout=1)]
        except Empty:
            return [], []
        end = time.monotonic() + lit_api.batch_timeout
        while len(waiting) < lit_api.max_batch_size:
            try:
                waiting.append(request_queue.get(timeout=max(0, end - time.monotonic())))
            except Empty:
                break
        oldest = time.monotonic() - lit_api.request_timeout
        return ([(queue, name, image) for queue, name, since, image in waiting if since >= oldest],
                [(queue, name) for queue, name, since, _ in waiting if since < oldest])


class Endpoints(LitSpec):
    """What the web process answers."""

    def __init__(self, artifact: Artifact, name: str, limits: Limits):
        super().__init__()
        self.classes, self.preprocessing, self.limits = artifact.classes, artifact.preprocessing, limits
        self.admitted = 0  # requests that are being answered
        self.api_path = "/predict"
        self.add_endpoint(self.api_path, self.answer_image, ["POST"])
        self.add_endpoint(f"/v1/models/{name}:predict", self.answer_instances, ["POST"])
        self.add_endpoint(f"/v1/models/{name}", self.tell_status, ["GET"])

    async def answer_image(self, request: Request) -> JSONResponse:
        """The most probable classes of an image, sent as a file or in base64."""
        top = read_top(request.query_params.get("top", str(min(TOP, len(self.classes)))), len(self.classes))
        async with self.admit_request():
            [(logits, probabilities)] = await self.compute_answers([await read_image(request)])
        # By logits, as in predict.py: probabilities are equal where logits still differ.
        best = np.argsort(-logits, kind="stable")[:top]
        found = [{"class": self.classes[place], "probability": float(probabilities[place])} for place in best]
        return JSONResponse({**found[0], "top": found})

    async def answer_instances(self, request: Request) -> JSONResponse:
        """The same as TensorFlow Serving answers."""
        async with self.admit_request():
            answers = await self.compute_answers(read_instances(read_json(await request.body())))
        return JSONResponse({"predictions": [{"logits": logits.tolist(), "probabilities": probabilities.tolist()}
                                             for logits, probabilities in answers]})

    async def tell_status(self, request: Request) -> JSONResponse:
        """The model's status as TensorFlow Serving tells it."""
        return JSONResponse({"model_version_status": [
            {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}]})

    @asynccontextmanager
    async def admit_request(self) -> AsyncIterator[None]:
        """A place among the requests that are answered at a time. Raises `HTTPException` where there is none, or where
        reading and answering take too long."""
        if self.admitted >= self.limits.requests:
            raise HTTPException(503, f"{self.admitted} requests are being answered; try again later")
        self.admitted += 1
        try:
            async with asyncio.timeout(PATIENCE):
                yield
        except TimeoutError:
            raise HTTPException(503, f"there was no answer within {PATIENCE} seconds; try again later") from None
        finally:
            self.admitted -= 1

    async def compute_answers(self, files: list[bytes]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Logits and probabilities, (K,) each, of image files."""
        images = await asyncio.get_running_loop().run_in_executor(
            DECODERS, decode_images, files, self.preprocessing, self.limits.pixels)
        return await asyncio.gather(*map(self.compute_answer, images))

    async def compute_answer(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        name, item = uuid.uuid4().hex, ResponseBufferItem(event=asyncio.Event())
        self.response_buffer[name] = item
        try:
            self.request_queue.put((self.response_queue_id, name, time.monotonic(), image))
            await item.event.wait()
        finally:
            self.response_buffer.pop(name, None)
        answer, status = item.response
        if status == LitAPIStatus.ERROR:
            raise HTTPException(500, "the model failed; the server's log says how")
        return answer


def read_top(text: str, most: int) -> int:
    if not (re.fullmatch("[0-9]{1,6}", text) and 0 < int(text) <= most):
        raise RefusedError(400, f"top is {text[:20]!r}; expected 1 to {most}")
    return int(text)


async def read_image(request: Request) -> bytes:
    """The image file in a request, of a form or of JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return read_image_field(read_json(await request.body()))
    if kind != "multipart/form-data":
        raise RefusedError(415, f"the content is {kind[:40]!r}; send an image file as multipart/form-data, or "
                                'application/json with {"image": "..."} in base64')
    async with request.form() as form:
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if len(files) != 1:
            raise RefusedError(400, f"the form has {len(files)} files; expected one image file")
        return await files[0].read()


class ImageServer(LitServer):
    """LitServe that says when it is ready, and tells each mistake in one line of JSON."""

    def __init__(self, artifact: Artifact, name: str, limits: Limits, threads: int, batch: int, wait: float):
        worker = ModelProcess(artifact.folder.absolute(), threads, spec=Endpoints(artifact, name, limits),
                        max_batch_size=batch, batch_timeout=wait)
        super().__init__(worker, accelerator="cpu", devices=1, timeout=PATIENCE, max_payload_size=limits.bytes,
                         disable_openapi_url=True, restart_workers=True)
        self.uvicorn_graceful_timeout, self.is_ending = GRACE, False
        self.ready_line = f"{artifact.name}, {len(artifact.classes)} classes"
        most = f"the request has more than {limits.bytes:,} bytes; scale the image down before sending it"
        for kind, tell in {
                RefusedError: lambda error: (error.status, str(error)),
                HTTPException: lambda error: (error.status_code, most if error.status_code == 413 else error.detail),
                ClientDisconnect: lambda error: (400, "the request was cut off"),
                Exception: lambda error: (500, "the server failed; its log says how")}.items():
            self.app.add_exception_handler(kind, build_handler(tell))

    def run(self, host: str, port: int) -> None:
        self.ready_line += f", at http://{f'[{host}]' if ':' in host else host}:{port}"
        os.register_at_fork(after_in_child=partial(end_with_parent, os.getpid()))
        super().run(host, port, num_api_servers=1, log_level="warning", generate_client_file=False)

    def _init_manager(self, num_api_servers: int) -> Any:
        """Start the process of the queues without SIGTERM, since a signal to all processes must not end it before the
        requests in progress are answered."""
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        try:
            return super()._init_manager(num_api_servers)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])

    def verify_worker_status(self) -> None:
        """Wait until the worker has loaded the model.

        Raises:
            UserError: where it was killed meanwhile.
            SystemExit: where it could not load the model, and has said why.
        """
        [worker] = self.inference_workers
        while WorkerSetupStatus.READY not in self.workers_setup_status.values():
            if not worker.is_alive():
                if worker.exitcode < 0:
                    raise UserError(f"signal {-worker.exitcode} ended the process that loaded the model; it may need "
                                    "more memory than there is")
                sys.exit(2)
            time.sleep(0.05)
        say(f"serving {self.ready_line}")

    def launch_single_inference_worker(self, lit_api: ModelProcess, worker_id: int) -> Any:
        """LitServe calls this where the worker has ended."""
        if self.is_ending:
            sys.exit()  # ends LitServe's thread that watches the worker
        process = super().launch_single_inference_worker(lit_api, worker_id)
        say("the process with the model has ended and is started again")
        return process

    def _perform_graceful_shutdown(self, *arguments: Any) -> None:
        """End the web process first, as LitServe does, and then the worker, which knows no SIGTERM."""
        self.is_ending = True
        for worker in self.inference_workers:
            worker.terminate = worker.kill
        super()._perform_graceful_shutdown(*arguments)


def end_with_parent(parent: int) -> None:
    """Let this process end within a second after the process `parent`, which may be killed without a word."""
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)
    Thread(target=watch, daemon=True).start()


def build_handler(tell: Any) -> Any:
    async def answer(request: Request, error: Exception) -> JSONResponse:
        status, line = tell(error)
        return JSONResponse({"error": line}, status)
    return answer
