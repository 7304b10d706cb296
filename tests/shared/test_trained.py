"""Reading a trained model without its data set."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from shared.config import Config, to_yaml
from shared.data.preprocessing import Preprocessing
from shared.errors import UserError
from shared.runs.trained import read_trained
from shared.weights.file import FORMAT, save_weights

WEIGHTS = {"fc.weight": np.zeros((2, 3), np.float32)}


@pytest.fixture
def run(tmp_path):
    """A run folder whose data set is an image folder that is gone."""
    config = Config(seed=4)
    config.dataset.name, config.dataset.root, config.dataset.image_size = "image_folder", str(tmp_path / "gone"), 32
    config.dataset.mean, config.hardware.devices, config.hardware.strategy = [0.1, 0.2, 0.3], 4, "data_parallel"
    save_weights(tmp_path / "best.safetensors", WEIGHTS, config, ("daisy", "tulip"))
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    return tmp_path


def test_no_data_set_is_needed(run):
    trained = read_trained(str(run))
    assert (trained.classes, trained.image_size, trained.channels) == (("daisy", "tulip"), 32, 3)
    assert trained.preprocessing.mean == (0.1, 0.2, 0.3)
    assert (trained.config.seed, trained.folder, trained.weights) == (4, run, run / "best.safetensors")
    assert trained.read_weights({"fc.weight": (2, 3)}).keys() == {"fc.weight"}


def test_it_computes_on_one_device_however_many_it_was_trained_on(run):
    settings = read_trained(str(run)).config.hardware
    assert (settings.devices, settings.num_nodes, settings.strategy) == (1, 1, "auto")


def test_a_weight_file_alone_is_enough(run, tmp_path):
    moved = tmp_path / "elsewhere" / "mine.safetensors"
    moved.parent.mkdir()
    (run / "best.safetensors").rename(moved)
    trained = read_trained(str(moved))
    assert (trained.classes, trained.folder) == (("daisy", "tulip"), None)


def test_weights_of_an_older_version_have_the_preprocessing_of_their_config_and_lose_keys_that_are_gone(tmp_path):
    config = Config()
    config.dataset.name = "cifar10"
    metadata = {"format": FORMAT, "classes": json.dumps(["a", "b"]), "config": to_yaml(config) + "gone: 3\n"}
    save_file(WEIGHTS, tmp_path / "old.safetensors", metadata)
    assert read_trained(str(tmp_path / "old.safetensors")).preprocessing == Preprocessing.of_config(config)


def test_what_still_means_something_can_be_set(run):
    config = read_trained(str(run), ["hardware.precision=bf16", "train.eval_batch_size=7"]).config
    assert (config.hardware.precision, config.train.eval_batch_size) == ("bf16", 7)


@pytest.mark.parametrize(("word", "line"), [
    ("optimizer.lr=1", "command line: optimizer.lr has no effect on a trained model; what can be set here is "
     "hardware.accelerator, "),
    ("hardware.precision=fp7", "hardware.precision='fp7' is not one of auto, fp32"),
    ("train.eval_batch_size=0", "train.eval_batch_size=0 is out of range"),
])
def test_what_cannot_be_set_is_told(run, word, line):
    with pytest.raises(UserError, match=f"^{line}"):
        read_trained(str(run), [word])


def test_weights_of_others_are_refused(tmp_path):
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="does not say what it was trained on"):
        read_trained(str(tmp_path / "model.safetensors"))


def test_weights_that_do_not_fit_are_told(run):
    with pytest.raises(UserError, match="does not fit this model"):
        read_trained(str(run)).read_weights({"fc.weight": (3, 3)})


def test_a_run_that_has_finished_no_epoch_is_told(tmp_path):
    with pytest.raises(UserError, match="name a run folder that has finished an epoch"):
        read_trained(str(tmp_path))
