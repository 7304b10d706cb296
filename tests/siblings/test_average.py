"""Copies of the weights beside the weights, `train.ema_decay` and `train.lookahead_every`, computed again by NumPy."""

import importlib
import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.conftest import SMALL

STEPS = 6


def record_steps(sibling, folder, *words):
    """The config, and the weights at the start and after each step of a training of one epoch in float64."""
    from shared.config import parse_config
    from shared.models import RESNETS

    config = parse_config([
        f"output_dir={folder}", "tracking.mode=disabled", "hardware.precision=fp64", "hardware.threads=1",
        "hardware.accelerator=cpu", "dataset.limit_train=80", "dataset.limit_test=20", "train.epochs=1",
        "train.batch_size=12", *words], "", "")
    probe = importlib.import_module(f"{sibling}_project.probe")
    with mock.patch.object(probe, "MARKS", range(1, STEPS + 1)), mock.patch.dict(RESNETS, SMALL):
        steps, start = probe.record_fit(config), probe.record_start(config)
    names = [name.removeprefix("drawn ") for name in start if name.startswith("drawn ")]
    return config, [{name: start[f"drawn {name}"].astype(np.float64) for name in names},
                    *({name: steps[f"step {step} {name}"] for name in names} for step in range(1, STEPS + 1))]


def averaged(sibling, folder, *words):
    """The best weights of a training, the average of its weights, the row of its epoch, and its result."""
    from shared.training.schedule import tabulate_average_decays

    config, weights = record_steps(sibling, folder, "train.ema_decay=0.4", *words)
    expected = weights[1]
    for step, decay in enumerate(tabulate_average_decays(config, STEPS)[1:], 2):
        expected = {name: decay * expected[name] + (1 - decay) * weights[step][name] for name in expected}
    run = next(Path(folder).glob("*/*"))
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return (load_file(run / "best.safetensors"), expected, next(row for row in rows if "val/loss" in row),
            json.loads((run / "result.json").read_text()))


@pytest.mark.parametrize("parts", [1, 2])
def test_the_average_of_the_weights_is_validated_and_kept(sibling, tmp_path, parts):
    best, expected, row, result = sibling.call(averaged, str(tmp_path), f"train.accumulate={parts}")
    for name, weights in best.items():
        if parts == 1 or ".running_" not in name:  # of which Keras' snapshots of parts are half a batch ahead
            np.testing.assert_allclose(weights, expected[name], rtol=0, atol=1e-12, err_msg=name)
    assert row["val/loss"] == pytest.approx(result["val/loss"], rel=1e-6)


def test_lookahead_pulls_slow_weights(sibling, tmp_path):
    """Of six steps the fourth pulls, and the sixth, the last one, leaves the slow weights as they are."""
    plain, found = (sibling.call(record_steps, str(tmp_path / str(every)), "schedule.name=constant",
                                 "schedule.warmup_epochs=0", f"train.lookahead_every={every}")[1] for every in (0, 4))
    kept = 0.95**5 * (4 / STEPS)**3
    for name, start in plain[0].items():
        slow = kept * start + (1 - kept) * plain[4][name]
        for step, expected in ((3, plain[3][name]), (4, slow), (6, slow)):
            np.testing.assert_allclose(found[step][name], expected, rtol=0, atol=1e-12, err_msg=f"{name} {step}")
    assert any(np.abs(found[5][name] - found[6][name]).max() > 1e-6 for name in plain[0])
