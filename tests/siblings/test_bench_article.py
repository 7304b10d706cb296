"""What each sibling measures for make bench-article."""

import importlib
import json
from pathlib import Path

import pytest


def measure(sibling: str, what: str, folder: str) -> None:
    from shared.bench.measure import write_cifar10
    from shared.config import parse_config
    root = Path(folder, "cifar-10-batches-bin")
    root.mkdir()
    write_cifar10(root, images=10_000)
    config = parse_config(["dataset.name=cifar10", f"dataset.root={root}", "dataset.limit_train=20",
                           "dataset.limit_test=20", "dataset.val_fraction=0.5", "train.batch_size=4", "train.epochs=2",
                           "optimizer.name=adam", "schedule.warmup_epochs=0", "hardware.accelerator=cpu",
                           "hardware.precision=fp32", "tracking.mode=disabled", f"output_dir={folder}/runs"], "", "")
    getattr(importlib.import_module(f"{sibling}_project.bench"), what)(config, Path(folder, "found.json"), 2)


@pytest.mark.parametrize("what", ["measure_training", "measure_stock_training"])
def test_two_epochs_are_measured(sibling, tmp_path, what):
    sibling.call(measure, what, str(tmp_path))
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found) == {"steps", "first_seconds", "later_seconds", "peak_memory_gib"}
    assert found["steps"] == 2
    assert all(value > 0 for value in found.values())
