"""What a run that goes on with another number of epochs was trained with, and where its learning rate jumps."""

import math

import numpy as np
import pytest

from shared.config import Config
from shared.training.schedule import tabulate_rates
from shared.training.segments import add_segment
from tests.shared.recordings import STEPS, list_pieces, segments_of


def planned(name="cosine", epochs=4, warmup=0.0):
    config = Config()
    config.optimizer.lr, config.train.epochs = 0.1, epochs
    config.schedule.name, config.schedule.warmup_epochs, config.schedule.step_epochs = name, warmup, 2
    return config


def test_a_cosine_that_is_made_longer_jumps():
    first, second = add_segment(segments_of((0, 2)), planned(epochs=4), 2 * STEPS, STEPS)
    assert list_pieces([first, second]) == [(0, 2), (2, 4)]
    assert second["name"] == "cosine"
    # Step 8 of 8 had 0.05 (1 + cos(7 pi / 8)); step 9 of 16 has 0.05 (1 + cos(pi / 2)).
    assert second["jump"] == pytest.approx([0.05 * (1 + math.cos(7 * math.pi / 8)), 0.05])


@pytest.mark.parametrize(("epochs", "step"), [(2, STEPS), (3, STEPS), (6, STEPS + 1), (4, 3 * STEPS)])
def test_a_cosine_jumps_wherever_it_is_cut(epochs, step):
    found = add_segment(segments_of((0, 5)), planned(epochs=epochs), step, STEPS)
    assert list_pieces(found) == [(0, 5), (step / STEPS, epochs)]
    assert found[-1]["jump"][0] == tabulate_rates(planned(epochs=5), STEPS)[step - 1]
    assert found[-1]["jump"][1] == tabulate_rates(planned(epochs=epochs), STEPS)[step]


@pytest.mark.parametrize(("config", "step"), [
    (planned("constant", 9), 2 * STEPS), (planned("constant", 9, warmup=1), 2 * STEPS), (planned("step", 9), 2 * STEPS),
    (planned("step", 3, warmup=0.5), STEPS + 1), (planned("cosine", 9, warmup=2), STEPS)])
def test_nothing_jumps_where_the_rates_so_far_are_those_of_one_piece(config, step):
    """A step schedule falls at the same epochs, and a cosine has not begun during the warm-up."""
    old = planned(config.schedule.name, 4, config.schedule.warmup_epochs)
    past = tabulate_rates(old, STEPS)[:step]
    assert np.array_equal(past, tabulate_rates(config, STEPS)[:step])
    found = add_segment(segments_of((0, 4)), config, step, STEPS)
    assert list_pieces(found) == [(0, 4), (step / STEPS, config.train.epochs)]
    assert "jump" not in found[-1]


@pytest.mark.parametrize(("before", "epochs", "step", "after"), [
    ([(0, 4)], 4, STEPS, [(0, 4)]),
    ([(0, 2), (2, 4)], 4, 3 * STEPS, [(0, 2), (2, 4)]),
    ([(0, 2), (2, 4)], 4, 2 * STEPS, [(0, 2), (2, 4)]),       # nothing was trained yet
    ([(0, 2), (2, 4)], 6, 2 * STEPS, [(0, 2), (2, 6)]),
    ([(0, 4), (2, 6)], 4, STEPS, [(0, 4)]),                   # back to a checkpoint before the change
    ([(0, 2), (2, 4)], 6, 4 * STEPS, [(0, 2), (2, 4), (4, 6)]),
    ([(0, 2)], 5, 0, [(0, 5)])])                              # cut off before its first checkpoint
def test_segments_are_those_that_were_trained(before, epochs, step, after):
    assert list_pieces(add_segment(segments_of(*before), planned(epochs=epochs), step, STEPS)) == after


def test_the_past_is_made_of_all_segments():
    config = planned(epochs=8)
    last = add_segment(segments_of((0, 2), (2, 4)), config, 3 * STEPS, STEPS)[-1]
    assert last["jump"][0] == tabulate_rates(planned(epochs=4), STEPS)[3 * STEPS - 1]
