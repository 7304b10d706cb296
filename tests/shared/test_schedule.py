"""Learning rates against lists written by hand."""

import math

import numpy as np
import pytest

from shared.config import Config
from shared.data.batches import count_steps
from shared.training.schedule import tabulate_average_decays, tabulate_lookahead, tabulate_rate_factors, tabulate_rates


def config(epochs=2, warmup=0.0, name="constant", lr=1.0, **schedule):
    made = Config()
    made.train.epochs, made.optimizer.lr = epochs, lr
    made.schedule.name, made.schedule.warmup_epochs = name, warmup
    for key, value in schedule.items():
        setattr(made.schedule, key, value)
    return made


def cosine(progress):
    return 0.5 * (1 + math.cos(math.pi * progress))


@pytest.mark.parametrize(("settings", "steps", "expected"), [
    ({"lr": 0.3}, 3, [0.3] * 6),
    ({"lr": 0.4, "warmup": 1}, 4, [0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4, 0.4]),
    ({"lr": 0.4, "warmup": 0.5}, 4, [0.2, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]),
    ({"lr": 0.4, "warmup": 2}, 2, [0.1, 0.2, 0.3, 0.4]),    # nothing but warm-up
    ({"name": "step", "epochs": 5, "step_epochs": 2, "step_factor": 0.5}, 2,
     [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]),
    ({"name": "step", "epochs": 3, "step_epochs": 1, "step_factor": 0.1, "warmup": 1}, 2,
     [0.5, 1, 0.1, 0.1, 0.01, 0.01]),                       # epochs count from the start, warm-up included
    ({"name": "cosine", "epochs": 1}, 4, [1, 0.8535533905932737, 0.5, 0.14644660940672627]),
    ({"name": "cosine", "epochs": 1, "final_factor": 0.2}, 4, [1, 0.882842712474619, 0.6, 0.31715728752538104]),
    ({"name": "cosine", "epochs": 3, "warmup": 1}, 2, [0.5, 1, 1, cosine(1 / 4), 0.5, cosine(3 / 4)]),
    ({"name": "cosine", "epochs": 2, "warmup": 2}, 1, [0.5, 1]),
    ({"name": "cosine", "epochs": 1}, 1, [1]),
    ({"name": "triangular", "epochs": 3, "warmup": 1, "lr": 2.0}, 2, [1, 2, 2, 1.5, 1, 0.5]),
    ({"name": "triangular", "epochs": 2, "warmup": 0.8, "initial_factor": 0.2, "final_factor": 0.5}, 5,
     [0.4, 0.6, 0.8, 1, 1, 11 / 12, 10 / 12, 9 / 12, 8 / 12, 7 / 12]),
    ({"warmup": 1, "initial_factor": 1.0}, 2, [1, 1, 1, 1]),
])
def test_rates_are_those_written_by_hand(settings, steps, expected):
    rates = tabulate_rates(config(**settings), steps)
    assert rates.dtype == np.float64
    assert rates.tolist() == pytest.approx(expected, rel=1e-12)


def test_the_articles_schedule():
    """20 epochs of Adam at 1e-3, a tenth of it every 5 epochs."""
    rates = tabulate_rates(config(20, lr=1e-3, name="step", step_epochs=5, step_factor=0.1), 390)
    assert len(rates) == 7800
    assert rates[[0, 1949, 1950, 3899, 3900, 5850, 7799]].tolist() == pytest.approx(
        [1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-6, 1e-6])


@pytest.mark.parametrize("name", ["constant", "step", "cosine", "triangular"])
@pytest.mark.parametrize("warmup", [0, 0.3, 1, 2.5])
def test_warm_up_reaches_the_peak_once_and_nothing_exceeds_it(name, warmup):
    factors = tabulate_rate_factors(config(10, warmup, name), 10)
    length = round(warmup * 10)
    assert np.all(np.diff(factors[:length]) > 0)
    assert np.all(np.diff(factors[length:]) <= 0)
    assert factors.max() == 1
    assert factors.min() > 0
    assert factors[max(length - 1, 0)] == 1


@pytest.mark.parametrize(("images", "batch", "limit", "overfit", "expected"), [
    (1294, 64, 0, 0, 20), (128, 64, 0, 0, 2), (127, 64, 0, 0, 1), (1294, 64, 3, 0, 3), (1294, 64, 0, 2, 2),
    (1294, 64, 3, 2, 2), (1294, 64, 1, 2, 1), (1294, 64, 100, 0, 20), (63, 64, 0, 0, 0),
])
def test_steps_are_whole_batches_and_debugging_limits_them(images, batch, limit, overfit, expected):
    made = config()
    made.train.batch_size, made.debug.limit_batches, made.debug.overfit_batches = batch, limit, overfit
    assert count_steps(made, images) == expected


@pytest.mark.parametrize(("decay", "expected"), [
    (0.0, [0, 0, 0, 0, 0, 0]),
    (0.3, [0, 2 / 11, 3 / 12, 0.3, 0.3, 0.3]),
    (0.999, [0, 2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15]),
])
def test_averages_forget_their_beginning(decay, expected):
    made = config(epochs=2)
    made.train.ema_decay = decay
    assert tabulate_average_decays(made, 3).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("every", "expected"), [
    (1, [1 / 216, 8 / 216, 27 / 216, 64 / 216, 125 / 216, 1]),
    (2, [None, 8 / 216, None, 64 / 216, None, 1]),
    (4, [None, None, None, 64 / 216, None, 1 / 0.95**5])])
def test_lookahead_keeps_more_and_more_of_the_slow_weights(every, expected):
    """The last step leaves the slow weights as they are where it is none of those that move them."""
    config = Config()
    config.train.epochs, config.train.lookahead_every = 2, every
    found = tabulate_lookahead(config, 3)
    assert [None if np.isnan(share) else share for share in found] == [
        share and pytest.approx(0.95**5 * share, rel=1e-12) for share in expected]
