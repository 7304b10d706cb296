"""docs/changing.md as a new user follows it: each section in a copy of the repository, and a training with it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from shared.machine.interpreters import is_installed, list_siblings
from tests.documented import apply_guide, copy_repository

SIBLINGS = [sibling for sibling in list_siblings() if is_installed(sibling)]
# Named so that conftest.py does not hand them to a process for each sibling: they share one copy of the repository.
both = pytest.mark.parametrize("sibling", SIBLINGS, ids=lambda sibling: f"{sibling}_project")

COMMON = ("tracking.mode=disabled", "tracking.log_every_steps=1", "hardware.accelerator=cpu", "hardware.precision=fp32",
          "hardware.threads=1", "dataset.limit_train=120", "dataset.limit_test=40", "train.epochs=2",
          "train.batch_size=32", "schedule.warmup_epochs=0")
WORDS = {"Model": ("model.name=plain",), "Data set": ("model.name=plain", "dataset.name=squares", "dataset.root=data"),
         "Metric": ("model.name=plain", "train.monitor=val/top3", "train.monitor_mode=max"),
         "Optimizer and schedule": ("model.name=plain", "optimizer.name=rmsprop", "optimizer.lr=0.001",
                                    "schedule.name=linear", "train.grad_clip=1"),
         "Callback": ("model.name=plain",), "Loss": ("model.name=vit_tiny", "dataset.image_size=8")}

# Trains once for each list of words, then scores each run folder that it is given; in one process, since an import of
# TensorFlow takes as long as all of it.
SCRIPT = """
import importlib, json, sys

sibling, output, trainings, runs = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), json.loads(sys.argv[4])
sys.path.insert(0, ".")
from shared.config import load_config, parse_config
from pathlib import Path

results = {}
for name, words in trainings.items():
    config = parse_config([*words, f"output_dir={output}/{sibling}/{name.split()[0]}"], "", "")
    results[name] = importlib.import_module(f"{sibling}_project.train").train(config)
for run in runs:
    config = load_config(Path(run, "config.yaml"))
    results[run] = importlib.import_module(f"{sibling}_project.evaluate").evaluate(config, run)
print("RESULTS", json.dumps(results))
"""


@dataclass(frozen=True)
class Tree:
    """A copy of the repository in which sections of the guide were followed."""

    folder: Path
    touched: dict[str, dict[str, int]]  # by section, then by file: lines

    def run(self, sibling: str, trainings: dict[str, tuple[str, ...]], runs: tuple[str, ...] = ()) -> dict[str, dict]:
        words = {name: [*COMMON, *own] for name, own in trainings.items()}
        done = subprocess.run([sys.executable, "-c", SCRIPT, sibling, str(self.folder / "made"), json.dumps(words),
                               json.dumps(runs)], cwd=self.folder, capture_output=True, text=True, timeout=280,
                              env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"})
        assert done.returncode == 0, done.stderr[-3000:]
        line = next(line for line in done.stdout.splitlines() if line.startswith("RESULTS "))
        return json.loads(line.removeprefix("RESULTS "))

    def find_run(self, sibling: str, section: str) -> Path:
        (run,) = (self.folder / "made" / sibling / section.split()[0]).glob(f"*/{sibling}_*")
        return run

    def read_rows(self, sibling: str, section: str) -> list[dict[str, float]]:
        file = self.find_run(sibling, section) / "metrics.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()]


def write_squares(folder: Path) -> None:
    """Bright squares of three sizes on dark ground, 16 x 16."""
    folder.mkdir()
    draws, arrays = np.random.default_rng(0), {}
    for split, count in (("train", 150), ("test", 45)):
        labels = np.arange(count) % 3
        images = draws.integers(0, 60, (count, 16, 16, 1), np.uint8)
        for image, label in zip(images, labels, strict=True):
            side = 3 + 4 * label
            top, left = draws.integers(0, 16 - side, 2)
            image[top:top + side, left:left + side] = 220
        arrays |= {split: images, f"{split}_labels": labels}
    np.savez(folder / "squares.npz", **arrays)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """All sections but the loss, which every other training would have too."""
    folder = copy_repository(tmp_path_factory.mktemp("guide") / "tree")
    write_squares(folder / "data")
    return Tree(folder, {"Model": apply_guide("Model", folder), "Data set": apply_guide("Data set", folder),
                         "Metric": apply_guide("Metric", folder), "Callback": apply_guide("Callback", folder),
                         "Optimizer and schedule": apply_guide("Optimizer and schedule", folder)})


@pytest.fixture(scope="module")
def trained(tree):
    """The result of each section in each sibling."""
    words = {name: WORDS[name] for name in tree.touched}
    return {sibling: tree.run(sibling, words) for sibling in SIBLINGS}


@pytest.mark.slow
@both
def test_a_model_of_ones_own_trains(trained, sibling):
    assert trained[sibling]["Model"]["parameters"] == 32 * 9 + 32 + 32 + 2 * 32 + 32 * 10 + 10
    assert trained[sibling]["Model"]["epochs"] == 2


@pytest.mark.slow
@pytest.mark.skipif(len(SIBLINGS) < 2, reason="needs both siblings")
def test_its_weights_travel(tree, trained):
    """Each sibling scores what the other one trained."""
    for here, there in (SIBLINGS, SIBLINGS[::-1]):
        run = str(tree.find_run(here, "Model"))
        found, own = tree.run(there, {}, (run,))[run], trained[here]["Model"]
        assert found["test/loss"] == pytest.approx(own["test/loss"], rel=1e-5)
        assert found["test/accuracy"] == own["test/accuracy"]


@pytest.mark.slow
@pytest.mark.skipif(len(SIBLINGS) < 2, reason="needs both siblings")
def test_it_starts_as_the_same_model(tree, trained):
    first = [next(row["train/loss_step"] for row in tree.read_rows(sibling, "Model") if "train/loss_step" in row)
             for sibling in SIBLINGS]
    assert first[0] == pytest.approx(first[1], rel=1e-6)


@pytest.mark.slow
@both
def test_a_data_set_of_ones_own_trains(tree, trained, sibling):
    record = json.loads((tree.find_run(sibling, "Data set") / "run.json").read_text())
    assert record["classes"] == ["small", "middle", "large"]
    assert record["sizes"] == {"train": 108, "val": 12, "test": 40}
    assert trained[sibling]["Data set"]["epochs"] == 2


@pytest.mark.slow
@both
def test_a_metric_of_ones_own_is_everywhere(tree, trained, sibling):
    rows = [row for row in tree.read_rows(sibling, "Metric") if "val/loss" in row]
    assert all({"train/top3", "val/top3"} <= set(row) for row in rows)
    result = trained[sibling]["Metric"]
    assert result["test/top3"] >= result["test/accuracy"]
    assert result["best_epoch"] == 1 + max(range(2), key=lambda epoch: rows[epoch]["val/top3"])


@pytest.mark.slow
@both
def test_a_frameworks_own_optimizer_and_a_schedule_train(tree, trained, sibling):
    rates = [row["lr"] for row in tree.read_rows(sibling, "Optimizer and schedule") if "train/loss_step" in row]
    assert rates == pytest.approx([0.001 * (1 - step / len(rates)) for step in range(len(rates))])
    assert np.isfinite(trained[sibling]["Optimizer and schedule"]["test/loss"])


@pytest.mark.slow
@both
def test_a_callback_is_one_line_and_runs(tree, trained, sibling):
    assert tree.touched["Callback"][f"{sibling}_project/callbacks.py"] == 1
    if sibling == "lightning":
        monitored = [name for row in tree.read_rows(sibling, "Callback") for name in row if name.startswith("lr-")]
        assert len(monitored) >= 6


def test_choices_and_help_follow_from_the_entries(tree):
    done = subprocess.run([sys.executable, f"{SIBLINGS[0]}_project/train.py", "--help"], cwd=tree.folder,
                          capture_output=True, text=True, check=True)
    for key, choice in (("model.name", "plain"), ("dataset.name", "squares"), ("optimizer.name", "rmsprop"),
                        ("schedule.name", "linear")):
        line = next(line for line in done.stdout.splitlines() if line.startswith(f"  {key}="))
        assert choice in line.replace(",", " ").replace(")", " ").replace("(", " ").split()
    done = subprocess.run([sys.executable, "-m", "shared.models"], cwd=tree.folder, capture_output=True, text=True,
                          check=True)
    assert "\nplain " in done.stdout


@pytest.mark.slow
@both
def test_a_loss_of_ones_own_trains(sibling, tmp_path):
    folder = copy_repository(tmp_path / "tree")
    lines = apply_guide("Loss", folder)
    assert sum(lines.values()) < 40
    here = Tree(folder, {"Loss": lines})
    result = here.run(sibling, {"Loss": WORDS["Loss"]})["Loss"]
    with np.load(here.find_run(sibling, "Loss") / "predictions.npz") as file:
        powers = np.exp(file["logits"].astype(np.float64))
        wrong = powers / powers.sum(axis=1, keepdims=True) - np.eye(10)[file["label"]]
    assert result["test/loss"] == pytest.approx(np.square(wrong).sum(axis=1).mean(), rel=1e-6)
