"""Where the defaults of image operations, metrics, losses, precision and early stopping differ."""

import numpy as np
import pytest

from shared.data.augment import build_resampling
from shared.errors import UserError
from shared.machine.hardware import choose_precision
from tests.conftest import needs_both
from tests.differences.measuring import apart

# Images, metrics, loss


@needs_both
def test_resize(torch, keras, rng, recorded):
    """In grey levels of 255, of noise."""
    images = rng.uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    matrix = build_resampling(np.zeros(1), np.array([64.0]), 64, 32)[0]
    ours = np.einsum("yh,nhwc,xw->nyxc", matrix, images, matrix)
    theirs, other = torch.resize(images, 32), keras.resize(images, 32)
    assert apart(theirs["plain"], other["stock"]) < 1e-3  # antialiasing is the only difference
    recorded(apart(theirs["stock"], other["stock"]),
             max(apart(ours, theirs["stock"]), apart(ours, other["antialiased"])))


@needs_both
def test_average_of_accuracy(torch, keras, rng, recorded):
    """Ninety images of one class and ten of another, the first told apart better; batches of 32, so 4 in the last."""
    labels = np.repeat([0, 1], [90, 10])
    logits = rng.standard_normal((100, 2)) + np.where(labels[:, None] == 0, [1.5, 0], [0.5, 0])
    ours, theirs = torch.accuracy(logits, labels, 32), keras.accuracy(logits, labels, 32)
    exact = float(np.mean(logits.argmax(axis=1) == labels))
    recorded(abs(ours["stock"] - theirs["stock"]), max(abs(ours["ours"] - exact), abs(theirs["stock"] - exact)))


@needs_both
def test_loss_takes_logits(torch, keras, rng, recorded):
    logits, targets = 3 * rng.standard_normal((16, 10)), rng.dirichlet(np.ones(10), 16)
    ours, theirs = torch.cross_entropy(logits, targets, 0.0), keras.cross_entropy(logits, targets, 0.0)
    recorded(abs(ours["stock"] - theirs["stock"]), abs(ours["stock"] - theirs["ours"]))


@needs_both
def test_label_smoothing(torch, keras, rng, recorded):
    targets = np.eye(10)[rng.integers(10, size=16)]
    logits = 3 * rng.standard_normal((16, 10)) + 5 * targets
    smoothed, plain = (torch.cross_entropy(logits, targets, smoothing)["stock"] for smoothing in (0.1, 0.0))
    assert abs(smoothed - plain) > 0.1  # else smoothing is off in both
    recorded(abs(smoothed - keras.cross_entropy(logits, targets, 0.1)["ours"]))


# Precision


@needs_both
def test_python_float_in_float64(torch, keras, recorded):
    assert torch.python_float(0.1) == 0.1
    recorded(abs(keras.python_float(0.1) - 0.1))


@needs_both
def test_half_precision_on_the_cpu(torch, keras, recorded):
    """1 + 2^-10 is a float16 and no bfloat16."""
    with pytest.raises(UserError, match="fp16 needs a GPU"):
        choose_precision("fp16", "cpu", gpu_has_bf16=False, depthwise=False)
    recorded(abs(torch.half_precision(1 + 2**-10) - keras.half_precision(1 + 2**-10)))


# Early stopping, in epochs


@needs_both
def test_patience(torch, keras, recorded):
    losses, options = [3.0, 2.0, 2.0, 2.5, 1.9, 1.9, 2.0, 1.95, 1.0], {"patience": 3, "mode": "min"}
    ours, theirs = torch.epochs_until_stop(losses, options), keras.epochs_until_stop(losses, options)
    assert ours["stock"] == 8  # the third after 1.9, the equal one counting
    recorded(abs(ours["stock"] - theirs["stock"]), abs(ours["stock"] - theirs["ours"]))


@needs_both
def test_default_patience(torch, keras, recorded):
    losses = [1.0] + [2.0] * 7
    recorded(torch.epochs_until_stop(losses, {})["stock"] - keras.epochs_until_stop(losses, {})["stock"])


@needs_both
def test_early_stopping_at_nan(torch, keras, recorded):
    losses, options = [3.0, float("nan"), 2.0, 2.5, 2.5, 2.5, 2.5, 2.5], {"patience": 3, "mode": "min"}
    ours, theirs = torch.epochs_until_stop(losses, options), keras.epochs_until_stop(losses, options)
    recorded(theirs["stock"] - ours["stock"])
