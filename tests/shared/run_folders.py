"""Run folders as a training leaves them, made without one."""

import json
import os
import time

import numpy as np
import pytest
from omegaconf import OmegaConf

from shared.config import Config, read_kept_config, to_dict
from shared.data.loading import load_data
from shared.runs.lock import HOLDER

# Of a process that takes hold of FOLDER, says so, and stays until the end of its input.
HOLD = """
import os, sys, time
from pathlib import Path
from shared.runs.lock import RunLock
lock = RunLock.acquire(Path(sys.argv[1]))
"""
WAIT = "print('held', flush=True)\nsys.stdin.read()\n"

LABELS = np.arange(50) % 10
EPOCHS = (0.4, 0.7, 0.9, 0.94)


def pretend_siblings(monkeypatch: pytest.MonkeyPatch, *siblings: str) -> None:
    """Let the comparison find these siblings' folders here."""
    for module in ("__main__", "facts", "noise"):
        monkeypatch.setattr(f"shared.compare.{module}.list_siblings", lambda: siblings)


def predictions(wrong, label=LABELS, index=None):
    """Logits that name the right class for all images but those in `wrong`."""
    answer = np.where(np.isin(np.arange(len(label)), wrong), (label + 1) % 10, label)
    return {"index": np.arange(len(label)) if index is None else index, "label": label,
            "logits": np.eye(10, dtype=np.float32)[answer]}


def make_run(root, framework="lightning", seed=0, group="quickstart", stamp="20260101-120000", wrong=(0,),
             finished=True, config=None, record=None, history=None):
    """A run folder as `shared.runs` leaves it. `config` has dotted keys; `record` is merged into run.json."""
    folder = root / group / f"{framework}_seed{seed}_{stamp}"
    folder.mkdir(parents=True)
    resolved = OmegaConf.create(to_dict(Config(experiment="quickstart", seed=seed)))
    for key, value in (config or {}).items():
        OmegaConf.update(resolved, key, value)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(resolved), encoding="utf-8")
    run = {"framework": framework, "group": group, "name": folder.name, "seed": seed, "started": f"{stamp}+00:00",
           "git": {"revision": "a" * 40, "dirty": False}, "versions": {}, "device": "a processor, 2 threads (cpu)",
           "precision": "bf16", "tf32": False, "parameters": 175258, "global_batch": 64, "steps_per_epoch": 20,
           "epochs": 4, "sizes": {"train": 1280, "val": 140, "test": len(LABELS)}, "classes": list("0123456789"),
           "environment": {},
           "fingerprints": {"data": "d0", "split": f"s{seed}", "test": "t0", "order": f"o{seed}",
                            "initial_weights": f"w{seed}"}}
    for key, value in (record or {}).items():
        run[key] = run[key] | value if isinstance(value, dict) else value
    (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
    rows = [{"samples": 1280 * (epoch + 1), "epoch": epoch + 1, "time/train_s": 2.0 * (epoch + 1),
             "train/loss": 1 - high, "train/accuracy": high, "val/loss": 1.1 - high, "val/accuracy": high - 0.01,
             "lr": 0.05, "perf/images_per_second": 640.0, "perf/epoch_seconds": 2.0, "perf/peak_memory_gib": 1.0}
            for epoch, high in enumerate(EPOCHS)] if history is None else history
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if finished:
        np.savez_compressed(folder / "predictions.npz", **predictions(wrong))
        speed = 2.0 if framework == "keras" else 1.0
        result = {
            "framework": framework, "group": group, "seed": seed, "test/accuracy": 1 - len(wrong) / len(LABELS),
            "test/loss": 0.1 * speed, "val/accuracy": 0.93, "val/loss": 0.16, "parameters": 175258, "best_epoch": 4,
            "perf/images_per_second": 640.0 / speed, "perf/epoch_seconds": 2.0 * speed,
            "perf/first_epoch_seconds": 5.0 * speed, "perf/peak_memory_gib": 1.5, "time/train_s": 8.0}
        (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    return folder


def answer_own_images(folder, choose_logits):
    """Let the run have been tested on the first test images of its data set, with the logits (n, K) that
    `choose_logits` returns for all their labels."""
    data = load_data(read_kept_config((folder / "config.yaml").read_text(encoding="utf-8"), folder))
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    record["fingerprints"]["test"] = data.fingerprints()["test"]
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    logits = choose_logits(data.test.labels)
    np.savez(folder / "predictions.npz", index=np.arange(len(logits)), label=data.test.labels[:len(logits)],
             logits=logits.astype(np.float32))
    return data


def hold_by_another_machine(folder, age=0.0, **facts):
    """A holder file as of a process elsewhere that gave its last sign of life `age` seconds ago."""
    facts = {"host": "elsewhere", "pid": 7, "process_start": 1, "machine": "elsewhere 1", "since": "yesterday"} | facts
    (folder / HOLDER).write_text(json.dumps(facts))
    os.utime(folder / HOLDER, (time.time() - age,) * 2)
