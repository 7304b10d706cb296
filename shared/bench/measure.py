"""Measurements of `shared.bench`, which a sibling makes in a process of its own."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import UserError
from shared.machine.hardware import measure_cpu_seconds
from shared.machine.interpreters import explain_not_runnable, list_variables, require_interpreter

ROUNDS = 3


def write_cifar10(folder: Path, images: int, seed: int = 0) -> None:
    """Write random images in CIFAR-10's binary format: five training files and a test file with `images` in each."""
    draws = np.random.default_rng(seed)
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        records = draws.integers(0, 256, (images, 3073), np.uint8)
        records[:, 0] = np.arange(images) % 10
        (folder / name).write_bytes(records.tobytes())


def measure_rounds(sibling: str, config: Path, folder: Path) -> list[dict[str, float]]:
    """Images per second of `train` and of the `bare` step in each of ROUNDS rounds."""
    return run_sibling_bench(sibling, config, folder, "rounds", ROUNDS)


def measure_bare(sibling: str, config: Path, folder: Path, steps: int) -> dict[str, float]:
    """Images per second of `steps` `bare` training steps, and the process' peak memory, `peak_memory_gib`."""
    return run_sibling_bench(sibling, config, folder, "bare", steps)


def run_sibling_bench(sibling: str, config: Path, folder: Path, what: str, count: int) -> Any:
    """What the sibling's bench.py writes when it measures `what`, see there, `count` times.

    Raises:
        UserError: where the sibling is not installed or fails.
    """
    out = folder / f"{sibling}.json"
    command = [require_interpreter(sibling), "-m", f"{sibling}_project.bench", str(config), str(out), what, str(count)]
    try:
        done = subprocess.run(command, cwd=folder, env=list_variables(), capture_output=True, text=True)
    except OSError as error:
        raise explain_not_runnable(sibling, error) from None
    if done.returncode:
        raise UserError(f"{sibling} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return json.loads(out.read_text(encoding="utf-8"))


def time_epochs(read_epoch: Callable[[int], int], started: float, seconds: float) -> dict[str, float]:
    """Images per second of the `first` epoch, from `started` on, and of those that follow for so many `seconds`, the
    `second` one at least; and of the latter images `per_core`, which is per second of CPU time.

    `read_epoch` reads an epoch, given its number from 0 on, and returns how many images it has read.
    """
    first = read_epoch(0) / (time.perf_counter() - started)
    began, used, images, epoch = time.perf_counter(), measure_cpu_seconds(), 0, 1
    while epoch == 1 or time.perf_counter() - began < seconds:
        images += read_epoch(epoch)
        epoch += 1
    return {"first": first, "second": images / (time.perf_counter() - began),
            "per_core": images / (measure_cpu_seconds() - used)}
