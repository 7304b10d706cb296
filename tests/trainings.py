"""Trainings in processes of their own, which faults may hit, and what is compared of them."""

import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

HIT = Path(__file__).with_name("hit.py")
# Six steps an epoch, a checkpoint after every second.
WORDS = ("dataset.limit_train=80", "dataset.limit_test=33", "train.batch_size=12", "train.eval_batch_size=16",
         "train.epochs=3", "train.checkpoint_every_steps=2", "train.early_stopping_patience=3",
         "tracking.mode=disabled", "tracking.log_every_steps=1", "hardware.threads=1", "hardware.precision=fp64",
         "hardware.accelerator=cpu", "optimizer.name=adamw", "optimizer.lr=0.001", "train.ema_decay=0.8",
         "train.lookahead_every=4", "resume=auto")
STEPS = 18
TEST_SECONDS = 240


@dataclass
class Ended:
    """How a process ended."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def last(self) -> str:
        """The last line on stderr that is ours: what TensorFlow and gloo say while they go down may follow it."""
        lines = [line for line in self.err.splitlines() if line.startswith(("error: ", "stopped "))]
        return lines[-1] if lines else self.err[-2000:]


def start(sibling: str, folder: Path, *words: str, fault: str = "none", step: int = 0,
          env: dict[str, str] | None = None, launcher: tuple[str, ...] = ()) -> subprocess.Popen:
    """A training that `fault` hits after `step`; `launcher` is what Python runs it with."""
    command = [sys.executable, *launcher, str(HIT), sibling, fault, str(step), *WORDS, f"output_dir={folder}", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, **(env or {})})


def wait(process: subprocess.Popen, seconds: float = TEST_SECONDS) -> Ended:
    """The end of a process; it is killed, and the test fails, where it takes longer."""
    started = time.monotonic()
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"still running after {seconds} s:\n{out[-1000:]}\n{err[-3000:]}") from None
    return Ended(process.returncode, out, err, time.monotonic() - started)


def workers(folder: Path, *words: str, **more: Any) -> list[subprocess.Popen]:
    """Two Keras workers on loopback, the first of which leads."""
    sockets = [socket.socket() for _ in range(2)]
    for one in sockets:
        one.bind(("localhost", 0))
    cluster = {"worker": [f"localhost:{one.getsockname()[1]}" for one in sockets]}
    for one in sockets:
        one.close()
    tasks = [json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}) for index in range(2)]
    return [start("keras", folder, "hardware.num_nodes=2", *words, env={"TF_CONFIG": task}, **more) for task in tasks]


def torchrun(folder: Path, *words: str, **more: Any) -> list[subprocess.Popen]:
    """Two Lightning processes, started by torchrun."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    return [start("lightning", folder, "hardware.devices=2", *words, launcher=launcher, **more)]


def slurm(sibling: str, folder: Path, *words: str, **more: Any) -> list[subprocess.Popen]:
    """Two processes with the variables that srun would set for two tasks on this machine."""
    job = str(random.randrange(10_000, 20_000))  # from which Lightning derives its port
    words = ("hardware.devices=2" if sibling == "lightning" else "hardware.num_nodes=2", *words)
    of_all = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_ID": job, "SLURM_JOB_NAME": "train",
              "SLURM_NODELIST": "localhost", "SLURM_NODEID": "0", "SLURM_STEP_NODELIST": "localhost",
              "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2"}
    return [start(sibling, folder, *words, env=of_all | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}, **more)
            for rank in range(2)]


def run(sibling: str, folder: Path, *words: str, **more: Any) -> Ended:
    return wait(start(sibling, folder, *words, **more))


def only_run(folder: Path, sibling: str) -> Path:
    """The one run folder there is."""
    found = list(folder.glob(f"*/{sibling}_*"))
    assert len(found) == 1, found
    return found[0]


def trained_state(run_folder: Path) -> dict[str, str]:
    """A digest of each tensor of the best weights and of the last checkpoint."""
    tensors = {}
    for file in (run_folder / "best.safetensors", *run_folder.glob("checkpoints/last.*")):
        if file.suffix == ".safetensors":
            found = load_file(file)
        else:  # a zip, since the pytest process has no PyTorch to read it with
            with zipfile.ZipFile(file) as archive:
                found = {name: np.frombuffer(archive.read(name), np.uint8) for name in archive.namelist()
                         if "/data/" in name}
        assert found, file
        tensors |= {f"{file.name} {name}": tensor for name, tensor in found.items()}
    return {name: hashlib.sha256(np.ascontiguousarray(tensor)).hexdigest() for name, tensor in tensors.items()}


def rows(run_folder: Path) -> list[dict[str, float]]:
    """metrics.jsonl without what a clock or a memory counter says."""
    found = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if not name.startswith(("perf/", "time/"))} for row in found]


def assert_same_training(whole: Path, other: Path, metrics: float = 0.0) -> None:
    """Bit for bit the same weights and predictions and, within a relative `metrics`, the same rows without gaps or
    repeats."""
    assert len(rows(other)) == len(rows(whole))
    for row, expected in zip(rows(other), rows(whole), strict=True):
        assert row == pytest.approx(expected, rel=metrics, abs=0)
    expected, found = trained_state(whole), trained_state(other)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
    scores = [json.loads((folder / "result.json").read_text()) for folder in (whole, other)]
    for name in ("test/accuracy", "test/loss", "val/accuracy", "best_epoch", "epochs"):
        assert scores[0][name] == scores[1][name], name


def on_devices(sibling: str, devices: int) -> float:
    """How close a training on so many devices is to one on one. Keras divides the loss by their number in float32, and
    multiplies what it reports by it again."""
    return 3e-7 if sibling == "keras" and devices == 3 else 1e-9


def assert_close_training(whole: Path, other: Path, tolerance: float = 1e-9) -> None:
    """The same weights, predictions and metrics within a relative `tolerance`, for float64; each image counted once."""
    expected, found = rows(whole), rows(other)
    assert [row["samples"] for row in found] == [row["samples"] for row in expected]
    for one, two in zip(expected, found, strict=True):
        assert two == pytest.approx(one, rel=tolerance)
    weights = [load_file(folder / "best.safetensors") for folder in (whole, other)]
    for name, tensor in weights[0].items():
        np.testing.assert_allclose(weights[1][name], tensor, rtol=0, atol=tolerance * max(1, np.abs(tensor).max()),
                                   err_msg=name)
    predictions = [np.load(folder / "predictions.npz") for folder in (whole, other)]
    assert predictions[1]["index"].tolist() == list(range(33))
    np.testing.assert_allclose(predictions[1]["logits"], predictions[0]["logits"], rtol=1e-6, atol=1e-6)  # kept in fp32
