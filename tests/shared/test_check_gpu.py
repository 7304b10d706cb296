"""make check-gpu: its parts in turn, its time, what it leaves, and the table in docs/scaling.md.

The sibling is a stand-in: parts that this file names, and a program in place of its own.
"""

import json
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from shared.bench.gpu import __main__ as gpu
from shared.bench.gpu import parts as all_parts
from shared.bench.gpu import record as records
from shared.bench.gpu import runner as runners
from shared.bench.gpu.parts import FAILS, MEASURED, PASSES, Finding, Part
from shared.bench.gpu.runner import OutOfTimeError, ProgramError, Runner, find_reason
from shared.errors import UserError
from shared.machine.pages import place_section

CPU_ONLY = {"versions": {"torch": "2.11"}}
H100 = {"versions": {"torch": "2.11"}, "gpu": "NVIDIA H100 80GB", "cuda": "13.0"}


class Machine:
    """A stand-in for a machine: what its siblings find, the parts there are, and which of them ran."""

    def __init__(self, out):
        self.out, self.ran = out, []
        self.found = {"lightning": H100, "keras": H100}
        self.parts = {}
        self.add("one", Finding(PASSES, "so fast", {"speed": 5.0}))
        self.add("two", Finding(MEASURED, "slow"), only="lightning")

    def add(self, name, result, **more):
        """A part with such a result, which is a Finding, an exception to raise, or a function that returns the first.
        """
        def check(runner):
            self.ran.append(f"{runner.sibling}/{name}")
            if isinstance(result, Exception):
                raise result
            return result() if callable(result) else result
        self.parts[name] = Part(f"part {name}", check, **more)

    def list_parts(self, siblings):
        return {f"{sibling}/{name}": part for sibling in siblings for name, part in self.parts.items()
                if part.only in ("", sibling)}

    def check(self, *words):
        return gpu.main([f"--out={self.out}", *words])

    def record(self):
        [file] = self.out.glob("*.json")
        return json.loads(file.read_text())


@pytest.fixture
def machine(tmp_path, monkeypatch):
    here = Machine(tmp_path)
    for module in (gpu, records):
        monkeypatch.setattr(module, "list_parts", here.list_parts)
    monkeypatch.setattr(gpu, "list_siblings", lambda: ("lightning", "keras"))
    monkeypatch.setattr(gpu, "find_interpreter", lambda sibling: sys.executable)
    monkeypatch.setattr(gpu, "SIGNS", (str(tmp_path),))
    monkeypatch.setattr(gpu, "describe_sibling", lambda runner: here.found[runner.sibling])
    return here


def test_each_part_is_run_once_and_written_down(machine, tmp_path, capsys):
    assert machine.check()
    assert machine.ran == ["lightning/one", "lightning/two", "keras/one"]
    assert machine.check()
    assert len(machine.ran) == 3
    assert machine.check("--again", "--parts", "keras/*")
    assert machine.ran[3:] == ["keras/one"]
    kept = machine.record()
    assert kept["parts"]["lightning/one"].items() >= {"outcome": PASSES, "text": "so fast",
                                                      "figures": {"speed": 5.0}}.items()
    assert kept["machine"].items() >= {"device": "NVIDIA H100 80GB", "accelerator": "gpu"}.items()
    page = (tmp_path / "nvidia-h100-80gb.md").read_text()
    assert "| part one | passes | 0 | so fast |" in page
    assert page.count("torch 2.11") == 2
    told = capsys.readouterr()
    assert re.search(r"^1/3 lightning/one: part one \((10:00|9:5\d) left\)$", told.err, re.MULTILINE)
    assert "    passes after 0 s: so fast" in told.err
    assert "3 parts are done, 0 failed" in told.out


def test_a_part_that_fails_is_recorded_and_the_others_go_on(machine, capsys):
    machine.add("one", ProgramError("it broke", ["a", "b"]))
    machine.add("bug", KeyError("loss"), only="keras")
    assert not machine.check()
    parts = machine.record()["parts"]
    assert parts["keras/one"].items() >= {"outcome": FAILS, "text": "it broke", "log": ["a", "b"]}.items()
    assert parts["keras/bug"]["text"] == "KeyError: 'loss'"
    assert parts["lightning/two"]["outcome"] == MEASURED
    assert "3 failed: lightning/one, keras/one, keras/bug" in capsys.readouterr().out


def test_where_the_time_is_up_the_same_command_goes_on(machine, monkeypatch, capsys):
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])

    def take_time():
        clock[0] += 55
        return Finding(PASSES, "")
    machine.add("one", take_time)
    machine.add("two", take_time)
    assert machine.check("--minutes=1")
    assert machine.ran == ["lightning/one"]
    assert "the time is up and 3 of 4 parts are left" in capsys.readouterr().out
    assert machine.check("--minutes=10")
    assert machine.ran[1:] == ["lightning/two", "keras/one", "keras/two"]


def test_of_a_part_that_the_end_of_all_time_cuts_off_nothing_is_recorded(machine, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    machine.add("one", OutOfTimeError("it was not done in time", []), seconds=30, only="lightning")
    machine.add("two", OutOfTimeError("it was not done in time", []), seconds=90, only="lightning")
    assert not machine.check("--minutes=1")
    assert machine.ran == ["lightning/one", "lightning/two"]
    parts = machine.record()["parts"]
    assert list(parts) == ["lightning/one"]
    assert parts["lightning/one"]["text"] == "it was not done in time"


def test_what_needs_a_gpu_says_so(machine):
    machine.add("two", Finding(PASSES, ""), needs_gpu=True)
    machine.found["keras"] = CPU_ONLY
    assert machine.check()
    assert {name: found["outcome"] for name, found in machine.record()["parts"].items()} == {
        "lightning/one": PASSES, "lightning/two": PASSES, "keras/one": "needs a GPU", "keras/two": "needs a GPU"}


def test_on_the_cpu_what_needs_a_gpu_does_not_pass(machine):
    machine.add("two", Finding(PASSES, ""), needs_gpu=True)
    machine.found = {"lightning": CPU_ONLY, "keras": CPU_ONLY}
    assert machine.check("--cpu")
    kept = machine.record()
    assert kept["machine"]["accelerator"] == "cpu"
    assert machine.ran == ["lightning/one", "keras/one"]
    assert kept["parts"]["keras/two"]["outcome"] == "needs a GPU"


@pytest.mark.parametrize("signs", [(), None], ids=["no device", "no framework"])
def test_without_a_gpu_nothing_is_tried(machine, tmp_path, monkeypatch, signs):
    machine.found = {"lightning": CPU_ONLY, "keras": CPU_ONLY}
    if signs is not None:
        monkeypatch.setattr(gpu, "SIGNS", signs)
        monkeypatch.setattr(gpu, "describe_sibling", lambda runner: pytest.fail("a framework is loaded in vain"))
    with pytest.raises(UserError, match=r"no GPU here that PyTorch or TensorFlow can use; .* --cpu tries"):
        machine.check()
    assert not machine.ran
    assert not list(tmp_path.iterdir())


def test_a_record_of_other_software_is_not_gone_on_with(machine):
    machine.check("--parts", "lightning/*")
    machine.check()  # the other sibling is added
    machine.found["lightning"] = H100 | {"versions": {"torch": "2.12"}}
    with pytest.raises(UserError, match=r"is of another state of this machine \(lightning\); begin it anew with"):
        machine.check()
    machine.check("--again", "--parts", "lightning/one")
    assert list(machine.record()["parts"]) == ["lightning/one"]


@pytest.mark.parametrize(("words", "hint"), [
    (["--parts", "lightning/nothing"], "is none of the parts .*: lightning/one, lightning/two, keras/one"),
    (["--out=/dev/null/x"], "--out: /dev/null/x cannot be made"), (["--minutes=long"], "invalid float value: 'long'")])
def test_mistakes_are_told_in_a_line(machine, words, hint):
    with pytest.raises(UserError, match=hint):
        machine.check(*words)


# The programs of a part

@pytest.fixture
def runner(tmp_path, monkeypatch):
    monkeypatch.setattr(runners, "require_interpreter", lambda sibling: sys.executable)
    return Runner("lightning", False, tmp_path)


def test_a_program_that_takes_too_long_is_killed_with_those_that_it_started(runner, tmp_path):
    code = ("import subprocess, sys, time\n"
            "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid, flush=True)\n"
            "time.sleep(60)")
    runner.deadline = time.monotonic() + 1.5
    began = time.monotonic()
    with pytest.raises(OutOfTimeError):
        runner.run(["-c", code])
    assert time.monotonic() - began < 10
    child = Path("/proc", (tmp_path / "log.txt").read_text().strip(), "stat")
    for _ in range(50):
        if not child.exists() or child.read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.1)
    raise AssertionError("the child of the program still runs")


def test_why_a_program_failed(runner):
    status, log = runner.run(["-c", "import os; os.kill(os.getpid(), 9)"])
    assert find_reason(status, log) == "it was ended by SIGKILL"
    status, log = runner.run(["-c", "raise ValueError('no such thing')"])
    assert find_reason(status, log) == "ValueError: no such thing"
    assert find_reason(2, ["error: too large; try 4", "something after it"]) == "too large; try 4"
    assert find_reason(1, []) == "it ended with status 1 without a message"


def test_a_training_elsewhere_than_asked_for_or_begun_anew_is_no_pass(runner, tmp_path, monkeypatch):
    def run(words, variables):
        [place] = [word.partition("=")[2] for word in words if word.startswith("output_dir=")]
        folder = Path(place, "digits", f"run{len(list(Path(place).glob('*/*')))}")
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"device": "some CPU (cpu)"}))
        return 0, []
    monkeypatch.setattr(runner, "run", run)
    assert runner.train("here") == runner.train("here") == tmp_path / "here" / "digits" / "run0"
    runner.trained.clear()
    with pytest.raises(ProgramError, match="there are 2 runs in place of one"):
        runner.train("here")
    runner.on_gpu = True
    with pytest.raises(ProgramError, match=r"it computed on some CPU \(cpu\) in place of the gpu"):
        runner.train("there")


@pytest.mark.parametrize(("status", "log", "passes"), [
    (2, ["error: train.batch_size=512 did not fit into memory; split it"], True),
    (1, ["Traceback ...", "torch.OutOfMemoryError: out of memory"], False), (0, [], False),
    (2, ["error: hardware.accelerator=gpu, but the framework finds no GPU"], False)])
def test_only_the_line_about_memory_passes(runner, monkeypatch, status, log, passes):
    monkeypatch.setattr(runner, "call", lambda *words: (status, log, None))
    if passes:
        assert all_parts.check_memory_line(runner).outcome == PASSES
    else:
        with pytest.raises(ProgramError):
            all_parts.check_memory_line(runner)


def test_a_training_that_was_not_killed_proves_nothing(runner, monkeypatch):
    monkeypatch.setattr(runner, "train", lambda *words: None)
    monkeypatch.setattr(runner, "call", lambda *words: (0, [], None))
    with pytest.raises(ProgramError, match="the training to be killed was not"):
        all_parts.check_resuming(runner)


# The table

def test_the_table_has_the_outcomes_of_gpus_alone(tmp_path):
    for name, accelerator in (("NVIDIA H100", "gpu"), ("A CPU", "cpu")):
        record = records.Record(tmp_path, {"device": name, "accelerator": accelerator}, {"lightning": CPU_ONLY})
        record.add("lightning/bf16", {"outcome": PASSES, "text": "", "figures": {}, "seconds": 1})
    rows = records.tabulate_support(tmp_path).splitlines()
    assert "| bf16 | passes: [NVIDIA H100](gpu/nvidia-h100.md) | not run on a GPU |" in rows
    assert "| fp32 with TF32 | not run on a GPU | not run on a GPU |" in rows
    assert "A CPU" not in "".join(rows)


def test_the_page_agrees_with_the_records_that_are_kept():
    page = place_section(records.PAGE, records.COMMAND, records.tabulate_support())
    assert page == records.PAGE.read_text(encoding="utf-8"), "python -m shared.bench.gpu --table mends it"


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "gpu.json").write_text("{")
    with pytest.raises(UserError, match=r"gpu\.json is no record of make check-gpu"):
        records.tabulate_support(tmp_path)


# How far trainings are apart

def write_run(folder, losses, weight, logit=1.0):
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("".join(json.dumps({"train/loss_step": loss}) + "\n" for loss in losses))
    (folder / "run.json").write_text(json.dumps({"precision": "fp32", "strategy": "one device"}))
    (folder / "result.json").write_text(json.dumps({"perf/peak_memory_gib": 1.5}))
    save_file({"fc.weight": np.array([weight, 1.0], np.float64)}, folder / "best.safetensors")
    np.savez(folder / "predictions.npz", logits=np.array([[logit, 4.0]], np.float32))
    return folder


def test_a_distance_is_measured_in_shares(tmp_path):
    one, other = write_run(tmp_path / "a", [2.0, 1.0], 8.0), write_run(tmp_path / "b", [2.2, 1.5], 8.4, logit=3.0)
    assert all_parts.measure_distance(one, other) == pytest.approx(
        {"first loss": 0.1, "last loss": 0.5, "weights": 0.05, "test logits": 0.5})


@pytest.mark.parametrize(("last", "outcome"), [(1.5, PASSES), (1.7, FAILS)])
def test_a_loss_has_to_fall(runner, tmp_path, monkeypatch, last, outcome):
    run = write_run(tmp_path / "run", [2.0] * 3 + [last] * 3, 1.0)
    monkeypatch.setattr(runner, "train", lambda *words, **more: run)
    assert all_parts.check_learning(runner, "fp32").outcome == outcome


@pytest.mark.parametrize(("loss", "weight", "outcome"), [
    (2.0001, 1 + 1e-9, PASSES), (2.001, 1 + 1e-9, FAILS), (2.0001, 1 + 1e-7, FAILS)])
def test_the_gpu_has_to_train_as_the_cpu_does(runner, tmp_path, monkeypatch, loss, weight, outcome):
    runs = {name: write_run(tmp_path / name, losses, 1.0) for name, losses in {
        "cpu": [2.0, 1.0], "cpu_thread": [2.0, 1.1], "fp32": [loss, 1.2], "tf32": [2.1, 1.3], "small_cpu": [2.0, 1.0]
    }.items()}
    runs["small"] = write_run(tmp_path / "small", [2.0, 1.0], weight)
    monkeypatch.setattr(runner, "train", lambda name, *words, **more: runs[name])
    found = all_parts.compare_with_cpu(runner)
    assert found.outcome == outcome
    assert "GPU, fp32 with TF32: first loss 0.05, last loss 0.3" in found.text


@pytest.mark.parametrize(("on_gpu", "train", "outcome"), [(True, 98.5, PASSES), (True, 97.5, FAILS),
                                                          (False, 50, MEASURED)])
def test_only_on_a_gpu_an_epoch_has_to_reach_the_bare_step(runner, tmp_path, monkeypatch, on_gpu, train, outcome):
    def measure(module, what, count, *words):
        (tmp_path / "rounds" / "digits").mkdir(parents=True)
        write_run(tmp_path / "rounds" / "digits" / "run", [1.0], 1.0)
        return [{"train": train, "bare": 100.0}]
    runner.on_gpu = on_gpu
    monkeypatch.setattr(runner, "measure", measure)
    found = all_parts.measure_rounds(runner, "a model")
    assert found.outcome == outcome
    assert found.figures == {"train": train, "bare": 100, "ratio": train / 100, "peak_memory_gib": 1.5}
