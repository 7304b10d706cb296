"""A second process that is to go on with a run which another one is training."""

import json
import os
import signal
import time

import pytest

from shared.machine.interpreters import is_installed, list_siblings
from tests.trainings import only_run, rows, run, start, torchrun, wait, workers

pytestmark = pytest.mark.timeout(900)
STARTS = {
    "lightning": {"one device": lambda folder: [start("lightning", folder)],
                  "two devices": lambda folder: [start("lightning", folder, "hardware.devices=2")],
                  "torchrun": torchrun},
    "keras": {"one device": lambda folder: [start("keras", folder)],
              "two devices": lambda folder: [start("keras", folder, "hardware.devices=2")],
              "two workers": workers}}


@pytest.mark.parametrize(("sibling", "how"), [(sibling, how) for sibling in list_siblings() for how in STARTS[sibling]])
def test_the_first_goes_on_and_the_second_has_a_run_of_its_own(tmp_path, report, sibling, how):
    if not is_installed(sibling):
        pytest.skip(f"the {sibling} sibling is not installed")
    first = STARTS[sibling][how](tmp_path)
    while not list(tmp_path.glob("*/*/checkpoints/last.*")):
        assert all(process.poll() is None for process in first), first[0].stderr.read()[-3000:]
        time.sleep(0.05)
    held = only_run(tmp_path, sibling)
    holder = json.loads((held / ".holder.json").read_text())
    stopped = {holder["pid"], *(process.pid for process in first)}  # torchrun's leader is a child of what was started
    for pid in stopped:  # in the middle of it, for as long as it takes
        os.kill(pid, signal.SIGSTOP)
    refused = run(sibling, tmp_path, f"resume={held}", "hardware.devices=1", "hardware.num_nodes=1")
    assert refused.code == 2, refused.err[-2000:]
    assert refused.last.startswith(f"error: {held} is in use by process {holder['pid']} on {holder['host']} since ")
    auto = run(sibling, tmp_path)
    assert auto.code == 0, auto.err[-2000:]
    assert f"passed over: {held} is in use by process {holder['pid']}" in auto.err
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    for process in first:
        ended = wait(process)
        # TensorFlow gives up workers that stood still, as they did here.
        assert ended.code == (2 if how == "two workers" else 0), ended.err[-3000:]
    for process in STARTS[sibling][how](tmp_path) if how == "two workers" else ():
        ended = wait(process)
        assert ended.code == 0, ended.err[-3000:]
    other = next(path for path in held.parent.iterdir() if path.is_dir() and path != held)
    for folder in (held, other):
        assert [row["epoch"] for row in rows(folder) if "val/loss" in row] == [1, 2, 3], folder
        assert not (folder / ".holder.json").exists()
    report(f"a second process for a run in progress, {sibling}, {how}: refused, or a run of its own", 1, 1)
