"""What data, callbacks and the framework's loop cost beside the bare training step.

python -m shared.bench [key=value ...]

For each sibling, in one process, alternating: a real `train(config)` of two epochs, of which the second counts, and as
many bare training steps (forward, backward, update) of the same model and precision on one batch that is in memory
already. The data are random, of CIFAR-10's shape. A ratio of 1 means that the step is all that costs time.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from shared.command import report_errors
from shared.config import parse, to_yaml
from shared.errors import UserError
from shared.hardware import cpu_name
from shared.interpreters import interpreter, not_runnable, required

ROUNDS = 3
BATCHES = 12  # per epoch


def write_cifar10(folder: Path, images: int, seed: int = 0) -> None:
    """Random images in CIFAR-10's binary format: five training files and a test file, `images` in each."""
    draws = np.random.default_rng(seed)
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        records = draws.integers(0, 256, (images, 3073), np.uint8)
        records[:, 0] = np.arange(images) % 10
        (folder / name).write_bytes(records.tobytes())


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "cifar-10-batches-bin")
        data.mkdir()
        write_cifar10(data, images=10_000)
        arguments = ["dataset.name=cifar10", f"dataset.root={data}", "dataset.val_fraction=0.01",
                     "dataset.limit_test=128", "augment.crop_padding=4", "augment.flip=true", "train.batch_size=128",
                     "train.epochs=2", "schedule.warmup_epochs=0", "tracking.mode=offline", f"output_dir={folder}/runs",
                     *sys.argv[1:]]
        config = parse(arguments, "python -m shared.bench", __doc__)
        images = (BATCHES + 1) * config.train.batch_size
        config = parse([*arguments, f"dataset.limit_train={images}"], "python -m shared.bench", __doc__)
        file = Path(folder, "config.yaml")
        file.write_text(to_yaml(config))
        print(f"{cpu_name()}; {config.model.name}, batch {config.train.batch_size}, {ROUNDS} rounds")
        print(f"{'':10} {'train.py':>18} {'bare step':>18} {'ratio (lowest to highest)':>28}")
        for sibling in ("lightning", "keras"):
            if interpreter(sibling) is None:
                print(f"{sibling:10} not installed here")
                continue
            rounds = measure(sibling, file, Path(folder))
            train, bare = ([one[name] for one in rounds] for name in ("train", "bare"))
            ratios = [a / b for a, b in zip(train, bare, strict=True)]
            print(f"{sibling:10} {statistics.median(train):10.1f} images/s {statistics.median(bare):9.1f} images/s "
                  f"{statistics.median(ratios):12.3f} ({min(ratios):.3f} to {max(ratios):.3f})", flush=True)


def measure(sibling: str, config: Path, folder: Path) -> list[dict[str, float]]:
    """Images per second of `train` and of the `bare` step in each round."""
    return run_bench(sibling, config, folder, "rounds", ROUNDS)


def bare(sibling: str, config: Path, folder: Path, steps: int) -> dict[str, float]:
    """Images per second of `steps` bare steps, and the peak memory of the process."""
    return run_bench(sibling, config, folder, "bare", steps)


def run_bench(sibling: str, config: Path, folder: Path, what: str, count: int) -> Any:
    out = folder / f"{sibling}.json"
    command = [required(sibling), "-m", f"{sibling}_project.bench", str(config), str(out), what, str(count)]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except OSError as error:
        raise not_runnable(sibling, error) from None
    if done.returncode:
        raise UserError(f"{sibling} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return json.loads(out.read_text())


if __name__ == "__main__":
    report_errors(main)
