"""Answer questions about images over HTTP from an exported model.

    python -m shared.serve ARTIFACT [--host 127.0.0.1] [--port 8000]

ARTIFACT is a folder in RUN/exports. docs/serving.md says what to ask and what is answered.
"""

import argparse
import importlib.util
import multiprocessing
import os
import re
import signal
import socket
import time
from multiprocessing.connection import wait
from threading import Thread
from types import FrameType

from shared.artifacts.description import read_artifact
from shared.artifacts.formats import require_packages
from shared.artifacts.serve.reading import Limits
from shared.errors import StoppedError, UserError
from shared.machine.arguments import Parser

HOSTS = ("127.0.0.1", "0.0.0.0", "::")  # the ones that LitServe knows
PORTS = range(1024, 65536)
EXTRA = {"litserve": "litserve", "python_multipart": "python-multipart"}


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m shared.serve", allow_abbrev=False, description=__doc__.partition("\n")[0],
                    formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("artifact", metavar="ARTIFACT", help="an exported model: a folder in RUN/exports")
    parser.add_argument("--host", choices=HOSTS, default=HOSTS[0],
                        help="who may ask: this machine alone, or every machine that reaches it over IPv4 or IPv6")
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="port to listen on, 1024 to 65535")
    parser.add_argument("--name", help="of the model, in the addresses of TensorFlow Serving; default: the folder's")
    parser.add_argument("--batch", type=int, default=16, metavar="N", help="most images that are computed together")
    parser.add_argument("--wait-ms", type=float, default=2, metavar="X",
                        help="how long the first image of a batch waits for others, in milliseconds")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="of the model; 0: its runtime decides")
    parser.add_argument("--max-megabytes", type=float, default=20, metavar="X", help="most bytes of a request")
    parser.add_argument("--max-megapixels", type=float, default=50, metavar="X",
                        help="most pixels of the images of a request, before they are scaled")
    parser.add_argument("--max-requests", type=int, default=128, metavar="N",
                        help="most requests that are answered at a time; more get status 503")
    options = parser.parse_args(arguments)
    for name, valid, expected in (
            ("port", options.port in PORTS, "1024 to 65535"), ("batch", options.batch > 0, "1 or more"),
            ("wait-ms", 0 <= options.wait_ms <= 1000, "0 to 1000"), ("threads", options.threads >= 0, "0 or more"),
            ("max-megabytes", options.max_megabytes > 0, "more than 0"),
            ("max-megapixels", options.max_megapixels > 0, "more than 0"),
            ("max-requests", options.max_requests > 0, "1 or more")):
        if not valid:
            raise UserError(f"--{name} is {getattr(options, name.replace('-', '_'))}; expected {expected}")
    return options


def require_server() -> None:
    for module, package in EXTRA.items():
        if importlib.util.find_spec(module) is None:
            raise UserError(f"{package} is not installed here; install the extra serve: pip install -e '.[serve]'")


def require_free_port(host: str, port: int) -> None:
    """Raise `UserError` where nobody can listen there."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            raise UserError(f"port {port} of {host} cannot be had ({error.strerror}); choose another with "
                            "--port") from None


def serve(options: argparse.Namespace) -> None:
    """Answer until a signal comes, and then end every process that was started.

    Raises:
        UserError: where the model cannot be served, or the port not be had, or a process that cannot be started again
            has ended.
        StoppedError: when a signal has come.
    """
    artifact = read_artifact(options.artifact)
    require_packages(artifact.format)
    require_server()
    name = options.name or artifact.folder.resolve().name
    if not re.fullmatch(r"[\w.-]+", name, re.ASCII):
        raise UserError(f"--name is {name!r}; expected letters, digits, dots, hyphens and underscores")
    require_free_port(options.host, options.port)

    from shared.artifacts.serve.server import ImageServer  # takes seconds to import

    limits = Limits(int(options.max_megabytes * 1e6), int(options.max_megapixels * 1e6), options.max_requests)
    server = ImageServer(artifact, name, limits, options.threads, options.batch, options.wait_ms / 1000)
    received = handle_signals()
    Thread(target=watch_web_process, args=(received,), daemon=True).start()
    try:
        server.run(options.host, options.port)
    except KeyboardInterrupt:
        pass  # before it was ready
    except (EOFError, ConnectionError):
        pass  # the process of the queues has ended
    finally:
        received.append(0)
        for child in multiprocessing.active_children():  # what LitServe left
            child.kill()
    if not received[0]:
        raise UserError("a process of the server has ended, so the server stops; start it again")
    raise StoppedError("", received[0])


def handle_signals() -> list[int]:
    """Let SIGTERM and SIGINT stop the server as LitServe stops on Ctrl-C. The list gets the signal that came.

    LitServe itself handles SIGINT alone: SIGTERM would end the first process and leave the others behind.
    """
    first, received = os.getpid(), []

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != first:  # a process that LitServe has forked, when its own handler is done
            os._exit(0)
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_IGN)  # a second one would cut the end short
        received.append(number)
        raise KeyboardInterrupt
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, stop)
    return received


def watch_web_process(received: list[int]) -> None:
    """Stop the server where its web process has ended without a signal in `received`, which then gets 0. LitServe does
    not notice that, and goes on without anybody being able to ask."""
    while not (web := [child for child in multiprocessing.active_children() if child.name.startswith("LitServer-")]):
        time.sleep(0.05)
    wait([web[0].sentinel])
    if not received:
        received.append(0)
        os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    serve(parse_arguments(None))
