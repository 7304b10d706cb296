"""A W&B server and a W&B disk on this machine that fail on command, and a run that is tracked beside them."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

DUMMY_KEY = "x" * 40
RUN = {"id": "b", "name": "n", "displayName": "n", "config": "{}", "historyLineCount": 0,
       "project": {"id": "p", "name": "p", "entity": {"id": "e", "name": "me"}}}
# What wandb 0.31 asks at the start and the end of a run; everything else is answered with nothing.
ANSWERS = {
    "ServerFeaturesQuery": {"serverInfo": {"features": []}},
    "RunResumeStatus": {"model": None},
    "UpsertBucket": {"upsertBucket": {"bucket": RUN, "inserted": True}},
    "CreateRunFiles": {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": []}},
}
# What wandb-workspaces 0.4 asks, which wants to know of whom and for which project.
DASHBOARD_ANSWERS = {
    "Viewer": {"viewer": {"id": "v", "entity": "me", "username": "me", "email": "", "flags": "{}",
                          "teams": {"edges": []}}},
    "GetDefaultEntity": {"viewer": {"id": "v", "entity": "me"}},
    "GetProjects": {"models": {"edges": [], "pageInfo": {"endCursor": None, "hasNextPage": False}}},
    "upsertView": {"upsertView": {"inserted": True, "view": {
        "id": "Vmlldzo3", "type": "runs", "name": "nw-seven-v", "displayName": "n", "description": "",
        "project": {"id": "p", "name": "p", "entityName": "me"}, "spec": '{"blocks": []}', "updatedAt": None}}},
}


ARTIFACT = {
    "__typename": "Artifact", "id": "QXJ0", "state": "COMMITTED", "versionIndex": 0, "artifactType": {"name": "model"},
    "description": None, "metadata": "{}", "ttlDurationSeconds": -2, "ttlIsInherited": True, "tags": [],
    "historyStep": 1, "size": 1, "digest": "d", "commitHash": "c", "fileCount": 1, "createdAt": "2026-01-01T00:00:00",
    "updatedAt": None, "aliases": [], "artifactSequence": {
        "__typename": "ArtifactSequence", "id": "s", "name": "m", "latestArtifact": None,
        "project": {"id": "p", "internalId": "1", "name": "p", "entity": {"name": "me"}}}}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        here: Server = self.server.owner
        here.bodies.append(body)
        if here.fault == "hangs":
            here.closing.wait()
        if here.fault == "refuses":  # the connections that were open when it went away
            self.close_connection = True
            return
        content = json.dumps(here.answer(self.path, body)).encode()
        self.send_response(500 if here.fault == "fails" else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(content)

    do_GET = do_PUT = do_POST  # noqa: N815

    def log_message(self, *words: object) -> None:
        pass


class Server:
    """`fault` is "answers", "fails" (with 500), "hangs" (takes connections and never answers) or "refuses" them.

    What it answers to a query is in `answers`, by a word of the query; to others it answers with nothing.

    It keeps the `lines` of history of a single run as W&B's file stream has it: what is sent with an offset takes the
    place of what was there from that line on.
    """

    def __init__(self, fault: str, answers: dict[str, Any] = ANSWERS):
        self.fault, self.answers, self.bodies, self.closing = "answers", answers, [], threading.Event()
        self.lines: list[str] = []
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads, self.http.block_on_close, self.http.owner = True, False, self
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()
        self.become(fault)

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        if path == "/graphql":
            query = json.loads(body)["query"]
            if "RunResumeStatus" in query and self.lines:
                return {"data": {"model": {**RUN["project"], "bucket": {
                    **RUN, "historyLineCount": len(self.lines), "eventsLineCount": 0, "logLineCount": 0,
                    "summaryMetrics": self.lines[-1], "historyTail": json.dumps(self.lines[-1:]), "eventsTail": "[]",
                    "tags": [], "notes": None, "wandbConfig": json.dumps({"t": 1})}}}}
            return {"data": next((data for name, data in self.answers.items() if name in query), {})}
        sent = json.loads(body).get("files", {}).get("wandb-history.jsonl") if path.endswith("/file_stream") else None
        if sent:
            self.lines[sent["offset"]:] = sent["content"]
        return {}

    def table(self) -> dict[int, float]:
        """The samples of each of the run's steps. W&B tells rows by their step: of two with one, the last counts."""
        return {row["_step"]: row["samples"] for row in map(json.loads, self.lines)}

    @property
    def asked(self) -> int:
        return len(self.bodies)

    def sent(self, word: str) -> bool:
        return any(word.encode() in body for body in self.bodies)

    def become(self, fault: str) -> None:
        self.fault = fault
        if fault == "refuses":
            self.http.shutdown()
            self.http.socket.close()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *error: object) -> None:
        self.closing.set()
        if self.fault != "refuses":
            self.become("refuses")


class Store(Server):
    """A server that also takes artifacts: the `files` of all of them by name, and the `types` by the artifact's name.
    """

    def __init__(self):
        self.files, self.types = {}, {}
        super().__init__("answers", ANSWERS | {
            "Viewer": DASHBOARD_ANSWERS["Viewer"], "query ArtifactType(": {"project": None},
            "mutation CreateArtifact ": {"createArtifact": {"artifact": ARTIFACT | {"state": "PENDING"}}},
            "ArtifactByID": {"artifact": ARTIFACT},
            "CommitArtifact": {"commitArtifact": {"artifact": {"id": ARTIFACT["id"], "digest": "d"}}}})
        self.answers["CreateArtifactManifest"] = {"createArtifactManifest": {"artifactManifest": {
            "id": "m", "file": {"id": "f", "uploadUrl": f"{self.address}/put/manifest", "uploadHeaders": []}}}}

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        if path.startswith("/put/"):
            self.files[path.removeprefix("/put/")] = body
        elif path == "/graphql":
            request = json.loads(body)
            given = request.get("variables", {}).get("input", {})
            if "mutation CreateArtifact " in request["query"]:
                self.types[given["artifactCollectionName"]] = given["artifactTypeName"]
            if "CreateArtifactFiles" in request["query"]:
                return {"data": {"createArtifactFiles": {"files": {"edges": [
                    {"node": {"storagePath": file["name"], "uploadUrl": f"{self.address}/put/{file['name']}",
                              "uploadHeaders": [], "uploadMultipartUrls": None, "artifact": {"id": ARTIFACT["id"]}}}
                    for file in given["artifactFiles"]]}}}}
        return super().answer(path, body)


@contextlib.contextmanager
def full_disk(folder: Path) -> Iterator[Callable[[], None]]:
    """A small file system on `folder`; gives the function that fills it to its last byte."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True,
                          text=True, check=False) if sys.platform == "linux" and os.geteuid() == 0 else None
    if done is None or done.returncode:
        pytest.skip("no file system can be mounted here: that takes Linux and root")

    def fill() -> None:
        with contextlib.suppress(OSError), (folder / "filling").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    try:
        yield fill
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


SCRIPT = """
import faulthandler, os, signal, sys, time
import shared.training.trackers.wandb as wandb_tracker
from shared.config import parse_config
from shared.runs.folder import RunFolder
from shared.training.trackers import Trackers

faulthandler.dump_traceback_later(60)  # says where it hangs, before it is killed
wandb_tracker.TIMEOUT = float(sys.argv[1])
began = time.perf_counter()
def lap(name):
    global began
    print("lap", name, time.perf_counter() - began, flush=True)
    began = time.perf_counter()

def kill_service():
    for name in filter(str.isdigit, os.listdir("/proc")):
        parent = open(f"/proc/{name}/stat").read().rpartition(")")[2].split()[1]
        if int(parent) == os.getpid() and "wandb" in open(f"/proc/{name}/cmdline").read():
            os.kill(int(name), signal.SIGKILL)
            return
    raise SystemExit("W&B has no process of its own")

tracker = Trackers(RunFolder.start(parse_config(sys.argv[3:], "", ""), "lightning"))
lap("start")
waited = 0
for row in range(1, 11):
    tracker.log({"samples": row, "epoch": row / 10, "time/train_s": row / 2, "train/loss": 1 / row})
    print("row", flush=True)
    if row == 5 and sys.argv[2] != "nothing":
        before = time.perf_counter()
        kill_service() if sys.argv[2] == "kill" else sys.stdin.readline()
        time.sleep(0.3)  # the connection to a dead process breaks a little later
        began += time.perf_counter() - before
lap("rows")
tracker.finish({"test/accuracy": 0.75}, status=0)
lap("end")
"""


@dataclass
class Tracked:
    """What became of a run: rows logged, seconds of each part, lines on standard error."""

    rows: int
    seconds: dict[str, float]
    told: list[str]


def environment(folder: Path, server: Server | None, **variables: str) -> dict[str, str]:
    """Variables of a process that tracks to `server`, without this machine's own W&B settings."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_") and name != "NETRC"}
    if server:
        given |= {"WANDB_BASE_URL": server.address, "WANDB_API_KEY": DUMMY_KEY}
    return given | {"WANDB_ERROR_REPORTING": "false", "HOME": str(folder),
                    "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"} | variables


def tracked(folder: Path, server: Server | None, patience: float, after_row_5: Callable[[], None] | str = "nothing",
            **variables: str) -> Tracked:
    """Track ten rows in a process of its own, online where there is a `server`, with `after_row_5` in between."""
    if after_row_5 == "kill" and sys.platform != "linux":
        pytest.skip("W&B's process is found in /proc")
    action = "wait" if callable(after_row_5) else after_row_5
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(patience), action, f"tracking.mode={'online' if server else 'offline'}",
         "output_dir=runs"], cwd=folder, env=environment(folder, server, **variables), stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    watchdog = threading.Timer(90, process.kill)
    watchdog.start()
    rows, seconds, before = 0, {}, time.perf_counter()
    with process, contextlib.closing(process.stdin):
        for line in process.stdout:
            words = line.split()
            if words[0] == "lap":
                seconds[words[1]] = float(words[2])
            rows += words[0] == "row"
            if line == "row\n" and rows == 5 and callable(after_row_5):
                after_row_5()
                process.stdin.write("\n")
                process.stdin.flush()
        told = process.stderr.read()
    watchdog.cancel()
    assert process.returncode == 0, told
    seconds["all"] = time.perf_counter() - before
    return Tracked(rows, seconds, told.splitlines())
