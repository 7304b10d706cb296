"""Measure how much time data, callbacks and the framework's loop take beside the bare training step.

python -m shared.bench [key=value ...]

Each sibling alternates, in one process, between a real `train(config)` of two epochs, of which the second counts, and
as many bare training steps (forward, backward, update) of the same model in the same precision on one batch in memory.
The data are random, in the shape of CIFAR-10. A ratio of 1 means that nothing but the steps takes time.
"""

import statistics
import sys
import tempfile
from pathlib import Path

from shared.bench.measure import ROUNDS, measure_rounds, write_cifar10
from shared.config import parse_config, to_yaml
from shared.machine.ending import report_errors
from shared.machine.hardware import describe_cpu
from shared.machine.interpreters import find_interpreter, list_siblings

BATCHES = 12  # per epoch


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "cifar-10-batches-bin")
        data.mkdir()
        write_cifar10(data, images=10_000)
        arguments = ["dataset.name=cifar10", f"dataset.root={data}", "dataset.val_fraction=0.01",
                     "dataset.limit_test=128", "augment.crop_padding=4", "augment.flip=true", "train.batch_size=128",
                     "train.epochs=2", "schedule.warmup_epochs=0", "tracking.mode=offline", f"output_dir={folder}/runs",
                     *sys.argv[1:]]
        config = parse_config(arguments, "python -m shared.bench", __doc__)
        images = (BATCHES + 1) * config.train.batch_size
        config = parse_config([*arguments, f"dataset.limit_train={images}"], "python -m shared.bench", __doc__)
        file = Path(folder, "config.yaml")
        file.write_text(to_yaml(config), encoding="utf-8")
        print(f"{describe_cpu()}; {config.model.name}, batch {config.train.batch_size}, {ROUNDS} rounds")
        print(f"{'':10} {'train.py':>18} {'bare step':>18} {'ratio (lowest to highest)':>28}")
        for sibling in list_siblings():
            if find_interpreter(sibling) is None:
                print(f"{sibling:10} not installed here")
                continue
            rounds = measure_rounds(sibling, file, Path(folder))
            train, bare = ([one[name] for one in rounds] for name in ("train", "bare"))
            ratios = [a / b for a, b in zip(train, bare, strict=True)]
            print(f"{sibling:10} {statistics.median(train):10.1f} images/s {statistics.median(bare):9.1f} images/s "
                  f"{statistics.median(ratios):12.3f} ({min(ratios):.3f} to {max(ratios):.3f})", flush=True)


if __name__ == "__main__":
    report_errors(main)
