"""make bench-input: photographs, measurements in turns, and their table."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from shared.bench import input as bench
from shared.bench.measure import time_epochs
from shared.bench.photographs import write_photographs
from shared.errors import UserError
from shared.machine.hardware import measure_cpu_seconds


def test_photographs_have_their_size_and_no_two_are_the_same(tmp_path):
    write_photographs(tmp_path, 700, 50, 4)
    files = sorted(tmp_path.rglob("*.jpg"))
    assert [str(file.relative_to(tmp_path)) for file in files] == [
        f"{split}/{name}/{number:04}.jpg" for split, count in (("test", 2), ("train", 4), ("val", 2))
        for name in ("china", "flower") for number in range(name == "flower", count, 2)]
    images = [Image.open(file) for file in files]
    assert {image.size for image in images} == {(700, 50)}
    assert len({np.asarray(image).tobytes() for image in images}) == 8


def test_epochs_are_read_until_the_time_is_over(monkeypatch):
    clock, read = [10.0], []
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("shared.bench.measure.measure_cpu_seconds", lambda: 2 * clock[0])

    def read_epoch(epoch):
        read.append(epoch)
        clock[0] += 4 if epoch == 0 else 2
        return 100
    rates = time_epochs(read_epoch, started=5.0, seconds=3)
    assert read == [0, 1, 2]
    assert rates == pytest.approx({"first": 100 / 9, "second": 50, "per_core": 25})


def test_the_cpu_time_of_processes_that_still_run_counts():
    before = measure_cpu_seconds()
    busy = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert 0.25 < measure_cpu_seconds() - before < 0.6
        process.communicate(b"\n")


def test_recipes_take_turns_and_a_row_has_their_medians(tmp_path, monkeypatch, capsys):
    asked = []

    def run(sibling, config, folder, what, count):
        text = config.read_text()
        assert "workers: 1" in text
        asked.append((sibling, what))
        speed = {"stock_input": 10}.get(what, 20 + 10 * ("cache: disk" in text) + len(asked) // 11)
        return {"first": 5.0, "second": 2.0 * speed, "per_core": speed, "peak_memory_gib": 0.5}
    monkeypatch.setattr(bench, "run_sibling_bench", run)
    monkeypatch.setattr(bench, "list_siblings", lambda: ("lightning", "keras"))
    monkeypatch.setattr(bench, "find_interpreter", lambda sibling: sys.executable)
    monkeypatch.setattr(bench, "PHOTOGRAPHS", {"40x30": 16})
    monkeypatch.setenv("TEMPLATE_CACHE", "")
    bench.main(["--rounds=2", "--readers=1", "--photographs", "40x30", f"--out={tmp_path}"])
    assert asked[:10] == [(sibling, what) for what in ("stock_input", *["input"] * 4)
                          for sibling in ("lightning", "keras")]
    assert asked[10:] == asked[:10]
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| 40x30 |")]
    assert len(rows) == 10
    assert rows[0] == "| 40x30 | 1 | torchvision | 5 | 20 | 10 | 10 to 10 | 1.00 | 0.50 |"
    assert rows[2] == "| 40x30 | 1 | lightning, exact | 5 | 41 | 20 | 20 to 21 | 2.05 | 0.50 |"
    assert (tmp_path / "bench-input.md").read_text().splitlines()[2:] == rows
    kept = json.loads((tmp_path / "bench-input.json").read_text())["measurements"]
    assert [one["round"] for one in kept] == [0] * 10 + [1] * 10
    assert kept[0].items() >= {"sibling": "lightning", "recipe": "torchvision", "per_core": 10}.items()


@pytest.mark.parametrize(("words", "hint"), [(["--rounds=0"], "--rounds has to be 1 or more"),
                                             (["--readers", "0"], "--readers from 1 to"),
                                             (["--photographs", "8x8"], "invalid choice: '8x8'")])
def test_what_cannot_be_measured_is_refused(words, hint):
    began = time.monotonic()
    with pytest.raises(UserError, match=hint):
        bench.main(words)
    assert time.monotonic() - began < 5
