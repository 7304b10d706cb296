"""A recorder of a run that a test makes, and the clock that it reads."""

import numpy as np

from shared.config import Config
from shared.runs.folder import RunFolder
from shared.training import recorder as module
from shared.training.recorder import Recorder

STEPS, BATCH = 4, 10


def make_config(folder):
    config = Config(output_dir=str(folder), experiment="made")
    config.tracking.mode, config.tracking.log_every_steps = "disabled", 2
    config.train.epochs, config.train.batch_size = 3, BATCH
    return config


def set_clock(monkeypatch):
    """A clock that a test sets."""
    class Clock:
        now = 100.0
    monkeypatch.setattr(module.time, "perf_counter", lambda: Clock.now)
    return Clock


def start(config, resumed=None):
    run = resumed or RunFolder.start(config, "keras")
    return Recorder(run, STEPS, np.linspace(0.1, 0.01, 12), measure_memory=lambda: 1.5)


def segments_of(*pieces):
    """A cosine's segments, of (from epoch, epochs)."""
    return [{"from_epoch": first, "epochs": epochs, "name": "cosine"} for first, epochs in pieces]


def list_pieces(segments):
    return [(segment["from_epoch"], segment["epochs"]) for segment in segments]
