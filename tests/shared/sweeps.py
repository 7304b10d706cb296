"""A stand-in for train.py, which a sweep's processes run in place of it, and sweeps' files for tests."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from shared.machine.interpreters import list_siblings, name_variable
from shared.training.sweep import studies, training
from shared.training.sweep.definition import Sweep, read_sweep
from shared.training.sweep.search import run_search

FILE = """
base: configs/quickstart.yaml
trials: 6
prune: false
fixed:
  train.epochs: 3
space:
  optimizer.lr: {low: 0.001, high: 1.0, log: true}
  train.batch_size: [16, 32]
"""

# Writes what a run leaves, an epoch every STUB_SECONDS, none while the file STUB_HOLD exists, and none once as many
# trainings as STUB_HOLD_FROM have finished. Its loss is smallest at a learning rate of 0.01 in Lightning and of 0.02 in
# Keras. It fails above FAIL_ABOVE, saves and ends at SIGTERM, and goes on with an unfinished run.
STUB = """#!{python}
import json, math, os, signal, sys, time
from pathlib import Path

sibling = Path(sys.argv[1]).parent.name.removesuffix("_project")
words = dict(word.split("=", 1) for word in sys.argv[2:] if "=" in word)
group = Path(words["output_dir"], words["experiment"])
with open(os.environ["STUB_CALLS"], "a") as file:
    file.write(json.dumps({{"sibling": sibling, "pid": os.getpid(), **words}}) + "\\n")
rate, epochs, seed = float(words.get("optimizer.lr", 0.01)), int(words.get("train.epochs", 3)), words.get("seed", "0")
if rate > float(os.environ.get("FAIL_ABOVE", "inf")):
    sys.exit("some framework's lines\\nerror: the loss is nan at step 7")

def stop(number, frame):
    print("stopped by SIGTERM, which is saved")
    os._exit(143)
signal.signal(signal.SIGTERM, signal.SIG_IGN if "IGNORE_SIGTERM" in os.environ else stop)
runs = sorted(path.parent for path in group.glob(f"{{sibling}}_seed{{seed}}_*/config.yaml"))
unfinished = [run for run in runs if not (run / "result.json").exists()]
run = unfinished[-1] if unfinished else group / f"{{sibling}}_seed{{seed}}_20260101-{{len(runs):06d}}"
run.mkdir(parents=True, exist_ok=True)
(run / "config.yaml").touch()
rows = run / "metrics.jsonl"
done = len(rows.read_text().splitlines()) if rows.exists() else 0
best = {{"lightning": 0.01, "keras": 0.02}}[sibling]
losses = [abs(math.log10(rate / best)) + 1 / (epoch + 1) for epoch in range(epochs)]
for epoch in range(done, epochs):
    time.sleep(float(os.environ.get("STUB_SECONDS", "0")))
    while os.path.exists(os.environ.get("STUB_HOLD", "")) or len(list(group.parent.glob(
            "*/*/result.json"))) >= int(os.environ.get("STUB_HOLD_FROM", "1000")):
        time.sleep(0.02)
    row = {{"samples": 64 * (epoch + 1), "epoch": epoch + 1, "time/train_s": epoch + 1.0, "val/loss": losses[epoch],
           "val/accuracy": 1 / (1 + losses[epoch]), "perf/epoch_seconds": 1.0}}
    with rows.open("a") as file:
        file.write(json.dumps(row) + "\\n")
result = {{"test/accuracy": 0.9, "best_epoch": epochs, "epochs": epochs, "time/train_s": float(epochs)}}
(run / "result.json").write_text(json.dumps(result))
"""


class Stub:
    """What the stand-in was called with."""

    def __init__(self, folder: Path):
        self.file = folder / "calls.jsonl"

    @property
    def calls(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self.file.read_text().splitlines()] if self.file.exists() else []


def install_stub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Stub:
    """Let every sibling's interpreter be the stand-in, and runs be made in `folder`, which becomes the current one."""
    script = folder / "stub.py"
    script.write_text(STUB.format(python=sys.executable))
    script.chmod(0o755)
    for sibling in list_siblings():
        monkeypatch.setenv(name_variable(sibling), str(script))
    monkeypatch.setenv("STUB_CALLS", str(folder / "calls.jsonl"))
    monkeypatch.setattr(training, "POLL", 0.02)
    monkeypatch.chdir(folder)
    return Stub(folder)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]


def read(text: str = FILE, **options) -> Sweep:
    Path("mine.yaml").write_text(text, encoding="utf-8")
    return read_sweep("mine.yaml", ["output_dir=runs"], **options)


def run(sweep: Sweep, storage: str | None = None, at_once: int = 1) -> dict[str, Any]:
    run_search(sweep, storage, at_once)
    return open_again(sweep, storage)


def open_again(sweep: Sweep, storage: str | None = None) -> dict[str, Any]:
    return studies.open_studies(sweep, studies.name_store(sweep, storage))


def states(study: Any) -> list[str]:
    return [trial.state.name for trial in study.get_trials()]


def start(*words: str, **variables: str) -> subprocess.Popen:
    """A sweep in a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "shared.sweep", "mine.yaml", "output_dir=runs", *words],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | variables)


def wait_for(holds, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)
