"""Measure peak memory and speed of a training step of every model, in each sibling.

python -m shared.bench.models [key=value ...]

Each measurement runs in its own process. After a step of warm-up it makes three bare steps (forward, backward, update)
on one batch in memory, of random images of the model's published size, or of 32 pixels where it has none. Memory is the
GPU's, or the whole process' where there is no GPU.
"""

import sys
import tempfile
from pathlib import Path

from shared.bench.measure import measure_bare, write_cifar10
from shared.config import parse_config, to_yaml
from shared.machine.console import Table
from shared.machine.ending import report_errors
from shared.machine.hardware import describe_cpu
from shared.machine.interpreters import find_interpreter, list_siblings
from shared.models import MODELS

BATCH, STEPS = 32, 3


def main() -> None:
    siblings = list_siblings()
    table = Table(["model", "pixels", *(f"{sibling}: {what}" for sibling in siblings
                                        for what in ("images/s", "peak GiB"))], [])
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "cifar-10-batches-bin")
        folder.mkdir()
        write_cifar10(folder, images=10_000)
        file = Path(place, "config.yaml")
        for name, entry in MODELS.items():
            size = entry.published.image_size if entry.published else 32
            config = parse_config([
                "dataset.name=cifar10", f"dataset.root={folder}", f"dataset.image_size={size}",
                "dataset.limit_train=200", "dataset.limit_test=100", f"train.batch_size={BATCH}", f"model.name={name}",
                f"output_dir={place}/runs", "tracking.mode=disabled", *sys.argv[1:]],
                "python -m shared.bench.models", __doc__)
            file.write_text(to_yaml(config), encoding="utf-8")
            row = [name, str(size)]
            for sibling in siblings:
                if find_interpreter(sibling) is None:
                    row += ["not installed", ""]
                    continue
                found = measure_bare(sibling, file, Path(place), STEPS)
                row += [f"{found['bare']:.1f}", f"{found['peak_memory_gib']:.1f}"]
            table.rows.append(row)
            print(*row, file=sys.stderr, flush=True)
    print(f"{describe_cpu()}; batch {BATCH}, {STEPS} steps\n\n{table.to_markdown()}")


if __name__ == "__main__":
    report_errors(main)
