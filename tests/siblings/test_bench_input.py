"""What each sibling measures for make bench-input."""

import importlib
import json
from pathlib import Path
from unittest import mock

import pytest

from shared.bench.photographs import write_photographs


def measure(sibling: str, what: str, root: str, out: str, *words: str) -> None:
    from shared.config import parse_config
    config = parse_config(["dataset.name=image_folder", f"dataset.root={root}", "dataset.image_size=16",
                           "augment.crop=resized", "train.batch_size=4", "train.epochs=10000", "hardware.workers=1",
                           "hardware.accelerator=cpu", *words], "", "")
    with mock.patch("shared.machine.hardware.use_cores"):  # this process goes on to other tests
        getattr(importlib.import_module(f"{sibling}_project.bench"), what)(config, Path(out), 0)


@pytest.mark.parametrize("what", ["measure_input", "measure_stock_input"])
def test_reading_is_measured(sibling, tmp_path, what):
    write_photographs(tmp_path / "photographs", 40, 30, 8)
    sibling.call(measure, what, str(tmp_path / "photographs"), str(tmp_path / "found.json"))
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found) == {"first", "second", "per_core", "peak_memory_gib"}
    assert all(value > 0 for value in found.values())
