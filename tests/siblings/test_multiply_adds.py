"""Multiply-adds of every model, counted by each sibling, beside published figures and a count by hand."""

import pytest

from shared.models import MODELS
from shared.runs.records import read_run
from shared.training.study.records import find_multiply_adds
from tests.conftest import train
from tests.siblings.test_zoo import start


def count(sibling, name, channels, classes, size, *words):
    import importlib

    *_, model = start(sibling, name, *words, size=size, classes=classes, channels=channels)
    return importlib.import_module(f"{sibling}_project.multiply_adds").count_multiply_adds(model, channels, size)


@pytest.mark.parametrize("name", [name for name, entry in MODELS.items() if entry.published])
def test_of_every_model_as_published(sibling, name):
    facts = MODELS[name].published
    assert sibling.call(count, name, 3, 1000, facts.image_size) / 1e9 == pytest.approx(facts.multiply_adds, abs=0.006)


def test_of_airbench_by_hand(sibling):
    # Sides 28 -> 27 by the 2x2 whitening, then 13, 6 and 3 by max pooling after each group's first convolution.
    by_hand = (27**2 * 4 * 8 + 27**2 * 9 * 8 * 64 + 13**2 * 9 * 64 * 64 + 13**2 * 9 * 64 * 256 + 6**2 * 9 * 256 * 256
               + 6**2 * 9 * 256 * 256 + 3**2 * 9 * 256 * 256 + 256 * 10)
    assert sibling.call(count, "airbench", 1, 10, 28) == by_hand


def test_what_saves_memory_in_training_counts_nothing_twice(sibling):
    usual = sibling.call(count, "vit_tiny", 3, 10, 32)
    assert sibling.call(count, "vit_tiny", 3, 10, 32, "model.gradient_checkpointing=true") == usual


def test_a_study_counts_those_of_a_run_once(sibling, tmp_path):
    sibling.call(train, str(tmp_path), "model.name=airbench", "train.epochs=1")
    [run] = tmp_path.glob("*/*/result.json")
    found = find_multiply_adds(read_run(run.parent))
    assert found == sibling.call(count, "airbench", 1, 10, 8)
    (run.parent / "best.safetensors").unlink()  # without which it could not be counted again
    assert find_multiply_adds(read_run(run.parent)) == found
