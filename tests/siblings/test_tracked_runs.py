"""What W&B's record of a training holds, the same in both siblings."""

import json
import os
from pathlib import Path
from unittest import mock

from shared.config import Config
from shared.data.loading import load_data
from shared.data.sampling import EXAMPLES, FIXED_SEED, choose_stratified
from tests.conftest import train


def track(sibling: str, folder: str) -> dict:
    with mock.patch.dict(os.environ, {"WANDB_DIR": folder, "WANDB_DATA_DIR": folder, "WANDB_ERROR_REPORTING": "false"}):
        return train(sibling, folder, "tracking.mode=offline", "tracking.examples=20")


def test_examples_are_the_same_test_images_in_both_siblings(sibling, tmp_path):
    done = sibling.call(track, str(tmp_path))
    assert done["error"] is None, done["error"]
    assert "Weights & Biases" not in done["err"]
    [table] = Path(tmp_path).glob("wandb/offline-run-*/files/media/table/test/predictions_*.table.json")
    content = json.loads(table.read_text())
    assert content["columns"] == ["image", "number", "label", "answer", "is_right", "probability"]
    config = Config()
    config.dataset.limit_test = 60
    labels = load_data(config).test.labels
    places = choose_stratified(labels, 20, FIXED_SEED, EXAMPLES)
    assert [(row[1], row[2]) for row in content["data"]] == [(place, str(labels[place])) for place in places]
    assert all(row[4] == (row[2] == row[3]) and 0.1 < row[5] <= 1 for row in content["data"])
    revision = json.loads((done["run"] / "run.json").read_text())["git"]["revision"]
    [record] = Path(tmp_path).glob("wandb/offline-run-*/run-*.wandb")
    for word in (revision or "revision", "train/loss", "val/accuracy", "test/predictions"):
        assert word.encode() in record.read_bytes(), word
