"""Where the frameworks' defaults differ, measured: docs/differences.md holds the figures, one test a row.

A test fails when a release changes a default either way, and where what this repository uses instead no longer agrees.
Each framework computes in its own process, from the same arrays; what they compute is in defaults_*.py.
"""

import ast
import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.batches.augment import build_resampling
from shared.errors import UserError
from shared.machine.files import REPOSITORY
from shared.machine.hardware import choose_precision
from shared.machine.interpreters import list_siblings
from tests.conftest import Sibling, needs_both

PAGE = REPOSITORY / "docs" / "differences.md"
TOLERANCE = 1e-2  # relative; a figure stands on the page with three digits
NUMBER = re.compile(r"\*\*([\d.e-]+)\*\*")



@dataclass(frozen=True)
class Row:
    """A row of the page: the difference of the defaults, or a bound of it, and of how far ours may be apart."""

    what: str
    figure: float
    is_bound: bool
    ours: float | None
    test: str


def rows() -> list[Row]:
    """The page's table, in bold its figures: | what | PyTorch | Keras | difference | here | test |"""
    found = []
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[-1].startswith("`test_"):
            what, _, _, difference, here, test = cells
            ours = NUMBER.search(here)
            found.append(Row(what, float(NUMBER.search(difference)[1]), difference.startswith("at most"),
                             float(ours[1]) if ours else None, test.strip("`")))
    return found


@pytest.fixture
def recorded(request):
    """Holds what a test measured against its row of the page: the defaults' difference, and ours where there is one."""
    row = {row.test: row for row in rows()}[request.node.name]
    held = []

    def hold(difference: float, ours: float | None = None) -> None:
        held.append(difference)
        says = f"{row.what}: {PAGE.name} says {{}}, measured {{:.4g}} with the installed versions"
        if row.is_bound:
            assert difference <= row.figure, says.format(f"at most {row.figure:g}", difference)
        else:
            assert difference == pytest.approx(row.figure, rel=TOLERANCE), says.format(f"{row.figure:g}", difference)
        assert (ours is None) == (row.ours is None), f"{row.what}: bound of ours missing on the page or in the test"
        if ours is not None:
            assert ours <= row.ours, says.format(f"at most {row.ours:g} for ours", ours)

    yield hold
    assert held, "the test measured nothing"


def answer(sibling: str, case: str, arguments: tuple, options: dict[str, Any]) -> Any:
    return getattr(importlib.import_module(f"tests.parity.defaults_{sibling}"), case)(*arguments, **options)


class Framework:
    """`framework.case(...)` runs that function of defaults_<sibling>.py in the sibling's process."""

    def __init__(self, sibling: Sibling):
        self.sibling = sibling

    def __getattr__(self, case: str) -> Callable[..., Any]:
        return lambda *arguments, **options: self.sibling.call(answer, case, arguments, options)


@pytest.fixture(scope="module")
def frameworks():
    siblings = [Sibling(name) for name in list_siblings()]
    for sibling in siblings:  # both at once, since importing a framework takes seconds
        sibling.pool.submit(importlib.import_module, f"tests.parity.defaults_{sibling.name}")
    yield [Framework(sibling) for sibling in siblings]
    for sibling in siblings:
        sibling.pool.shutdown()


@pytest.fixture(scope="module")
def torch(frameworks):
    return frameworks[0]


@pytest.fixture(scope="module")
def keras(frameworks):
    return frameworks[1]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def apart(a: np.ndarray, b: np.ndarray, scale: Any = 1.0) -> float:
    return float(np.max(np.abs(np.subtract(a, b) / scale)))


def farthest(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    """The largest difference between arrays of the same name, relative to the largest value of each."""
    assert a.keys() == b.keys()
    return max(apart(a[name], b[name], np.abs(a[name]).max()) for name in a)


# Convolution


@needs_both
def test_padding_of_strided_convolution(torch, keras, rng, recorded):
    images, kernel = rng.standard_normal((2, 8, 8, 4)), rng.standard_normal((3, 3, 4, 5))
    ours, theirs = torch.strided_convolution(images, kernel)["stock"], keras.strided_convolution(images, kernel)
    recorded(apart(theirs["stock"], ours, np.abs(ours).max()), apart(theirs["ours"], ours, np.abs(ours).max()))


@needs_both
def test_padding_of_strided_convolution_of_odd_size(torch, keras, rng, recorded):
    images, kernel = rng.standard_normal((2, 7, 7, 4)), rng.standard_normal((3, 3, 4, 5))
    ours, theirs = torch.strided_convolution(images, kernel)["stock"], keras.strided_convolution(images, kernel)
    recorded(apart(theirs["stock"], ours, np.abs(ours).max()), apart(theirs["ours"], ours, np.abs(ours).max()))


# Batch normalisation


def norm_arguments(rng: np.random.Generator, dtype: str) -> list[np.ndarray]:
    """16 values for each of 3 channels, which is few enough for n - 1 to show, and what batch_norm() takes besides."""
    arrays = (3 + 2 * rng.standard_normal((4, 2, 2, 3)), rng.uniform(0.5, 2, 3), rng.standard_normal(3),
              rng.standard_normal((4, 2, 2, 3)))
    return [array.astype(dtype) for array in arrays]


@needs_both
def test_batch_norm_momentum(torch, keras, rng, recorded):
    arguments = norm_arguments(rng, "float64")
    batch_mean = arguments[0].mean(axis=(0, 1, 2))
    ours, theirs = torch.batch_norm(*arguments)["stock"], keras.batch_norm(*arguments)
    recorded(apart(ours["mean"], theirs["stock"]["mean"], batch_mean),
             apart(ours["mean"], theirs["ours"]["mean"], batch_mean))


@needs_both
def test_batch_norm_eps(torch, keras, rng, recorded):
    images = rng.standard_normal((4, 2, 2, 3))
    ours, theirs = (framework.batch_norm_evaluation(images, 0.01) for framework in (torch, keras))
    recorded(apart(theirs["stock"], ours["stock"], ours["stock"]), apart(theirs["ours"], ours["stock"], ours["stock"]))


@needs_both
def test_batch_norm_running_variance(torch, keras, rng, recorded):
    arguments = norm_arguments(rng, "float64")
    ours, theirs = torch.batch_norm(*arguments)["stock"], keras.batch_norm(*arguments)
    moved = ours["variance"] - 0.9  # from an initial 1
    recorded(apart(theirs["stock with PyTorch's settings"]["variance"], ours["variance"], moved),
             apart(theirs["ours"]["variance"], ours["variance"], moved))


@needs_both
def test_batch_norm_float64(torch, keras, rng, recorded):
    """The path that is written out: outputs, gradients and running statistics."""
    arguments = norm_arguments(rng, "float64")
    ours, theirs = torch.batch_norm(*arguments)["stock"], keras.batch_norm(*arguments)
    recorded(farthest(ours, theirs["stock with PyTorch's settings"]), farthest(ours, theirs["ours"]))


@needs_both
def test_batch_norm_float32(torch, keras, rng, recorded):
    """The path through TensorFlow's fused kernel."""
    arguments = norm_arguments(rng, "float32")
    ours, theirs = torch.batch_norm(*arguments)["stock"], keras.batch_norm(*arguments)
    recorded(farthest(ours, theirs["stock with PyTorch's settings"]), farthest(ours, theirs["ours"]))


@needs_both
def test_batch_norm_paths_agree(keras, rng, recorded):
    arguments = norm_arguments(rng, "float32")
    fused, written_out = keras.batch_norm(*arguments), keras.batch_norm(*(array.astype("float64")
                                                                          for array in arguments))
    stock = "stock with PyTorch's settings"
    recorded(farthest(written_out[stock], fused[stock]), farthest(written_out["ours"], fused["ours"]))


@needs_both
def test_batch_norm_fused_eps(torch, keras, rng, recorded):
    """Some releases of TensorFlow raise a fused eps below 1.001e-5; a tiny variance shows it."""
    images = rng.standard_normal((4, 2, 2, 3)).astype(np.float32)
    ours, theirs = (framework.batch_norm_evaluation(images, 1e-6) for framework in (torch, keras))
    recorded(apart(theirs["stock"], ours["stock"], ours["stock"]), apart(theirs["ours"], ours["stock"], ours["stock"]))


# Initial weights


@needs_both
def test_initial_deviation_of_dense(torch, keras, recorded):
    recorded(keras.initial_deviations()["dense"] / torch.initial_deviations()["dense"])


@needs_both
def test_initial_deviation_of_convolution(torch, keras, recorded):
    recorded(keras.initial_deviations()["convolution"] / torch.initial_deviations()["convolution"])


@needs_both
def test_initial_bias(torch, keras, recorded):
    assert keras.initial_deviations()["bias"] == 0
    recorded(torch.initial_deviations()["bias"])


# Optimizers. Differences are relative to how far PyTorch's weights moved.

STEPS = 20
CONSTANT = np.full(STEPS, 0.01)
DROP = np.where(np.arange(STEPS) < STEPS // 2, 0.01, 0.001)
WARM_UP_AND_DROP = DROP * np.minimum(1, np.arange(1, STEPS + 1) / 5)


class Descent:
    """Weights and the gradients of some steps."""

    def __init__(self, rng: np.random.Generator, scale: float = 1.0):
        self.weights = rng.standard_normal((6, 5))
        self.gradients = scale * (0.5 + rng.standard_normal((STEPS, 6, 5)))

    def run(self, framework: Framework, rule: str, rates: np.ndarray | None, /, **options) -> np.ndarray:
        return framework.optimize(rule, options, self.weights, self.gradients, rates)

    def apart(self, a: np.ndarray, b: np.ndarray) -> float:
        return apart(a, b, np.abs(a - self.weights).max())


def at_a_changing_rate(torch: Framework, keras: Framework, rng: np.random.Generator, nesterov: bool) -> list[float]:
    """How far stock SGD and ours are from PyTorch's after a drop of the learning rate, ours also with a warm-up."""
    descent = Descent(rng)
    options = {"momentum": 0.9, "nesterov": nesterov}
    reference, warm = (descent.run(torch, "SGD", rates, **options) for rates in (DROP, WARM_UP_AND_DROP))
    return [descent.apart(reference, descent.run(keras, "SGD", DROP, **options)),
            max(descent.apart(reference, descent.run(keras, "our SGD", DROP, **options)),
                descent.apart(warm, descent.run(keras, "our SGD", WARM_UP_AND_DROP, **options)))]


@needs_both
def test_sgd_momentum_at_a_changing_rate(torch, keras, rng, recorded):
    recorded(*at_a_changing_rate(torch, keras, rng, nesterov=False))


@needs_both
def test_sgd_nesterov_at_a_changing_rate(torch, keras, rng, recorded):
    recorded(*at_a_changing_rate(torch, keras, rng, nesterov=True))


@needs_both
def test_sgd_momentum_at_a_constant_rate(torch, keras, rng, recorded):
    descent = Descent(rng)
    reference = descent.run(torch, "SGD", CONSTANT, momentum=0.9)
    recorded(descent.apart(reference, descent.run(keras, "SGD", CONSTANT, momentum=0.9)),
             descent.apart(reference, descent.run(keras, "our SGD", CONSTANT, momentum=0.9)))


@needs_both
def test_sgd_weight_decay(torch, keras, rng, recorded):
    descent = Descent(rng)
    reference = descent.run(torch, "SGD", CONSTANT, momentum=0.9, weight_decay=0.1)
    recorded(descent.apart(reference, descent.run(keras, "SGD", CONSTANT, momentum=0.9, weight_decay=0.1)),
             descent.apart(reference, descent.run(keras, "our SGD", CONSTANT, momentum=0.9, weight_decay=0.1)))


@needs_both
def test_adam_weight_decay(torch, keras, rng, recorded):
    descent = Descent(rng)
    reference = descent.run(torch, "Adam", CONSTANT, weight_decay=0.1)
    recorded(descent.apart(reference, descent.run(keras, "Adam", CONSTANT, weight_decay=0.1)),
             descent.apart(reference, descent.run(keras, "our Adam", CONSTANT, weight_decay=0.1)))


@needs_both
def test_adamw_default_decay(torch, keras, rng, recorded):
    """Without gradients AdamW only decays; both default to a learning rate of 1e-3."""
    descent = Descent(rng, scale=0.0)
    reference = descent.run(torch, "AdamW", None)
    recorded(descent.apart(reference, descent.run(keras, "AdamW", None)),
             descent.apart(reference, descent.run(keras, "our AdamW", np.full(STEPS, 1e-3), weight_decay=0.01)))


@needs_both
def test_adam_default_eps(torch, keras, rng, recorded):
    descent = Descent(rng, scale=1e-5)
    reference = descent.run(torch, "Adam", CONSTANT)
    recorded(descent.apart(reference, descent.run(keras, "Adam", CONSTANT)),
             descent.apart(reference, descent.run(keras, "our Adam", CONSTANT)))


@needs_both
def test_adam_eps_placement(torch, keras, rng, recorded):
    descent = Descent(rng, scale=1e-5)
    reference = descent.run(torch, "Adam", CONSTANT, eps=1e-8)
    recorded(descent.apart(reference, descent.run(keras, "Adam", CONSTANT, epsilon=1e-8)),
             descent.apart(reference, descent.run(keras, "our Adam", CONSTANT, epsilon=1e-8)))


@needs_both
def test_adamw(torch, keras, rng, recorded):
    descent = Descent(rng)
    reference = descent.run(torch, "AdamW", WARM_UP_AND_DROP, weight_decay=0.1)
    stock = descent.run(keras, "AdamW", WARM_UP_AND_DROP, weight_decay=0.1, epsilon=1e-8)
    ours = descent.run(keras, "our AdamW", WARM_UP_AND_DROP, weight_decay=0.1)
    recorded(descent.apart(reference, stock), descent.apart(reference, ours))


@needs_both
def test_lion(torch, keras, rng, recorded):
    """Keras' own class in both cases; among our rules it gets its numbers as `build_optimizer` gives them."""
    descent = Descent(rng)
    reference = descent.run(torch, "our Lion", WARM_UP_AND_DROP, betas=(0.9, 0.99), weight_decay=0.1)
    recorded(descent.apart(reference, descent.run(keras, "Lion", WARM_UP_AND_DROP, beta_2=0.99, weight_decay=0.1)),
             descent.apart(reference, descent.run(keras, "our Lion", WARM_UP_AND_DROP, beta_1=np.float64(0.9),
                                                  beta_2=np.float64(0.99), weight_decay=0.1)))


def of_muon(torch: Framework, keras: Framework, rng: np.random.Generator, scale: str) -> list[float]:
    """How far stock Muon and ours are apart; `scale` is what PyTorch's is told."""
    descent = Descent(rng)
    stock = descent.run(torch, "Muon", WARM_UP_AND_DROP, weight_decay=0.1, adjust_lr_fn=scale)
    ours = descent.run(torch, "our Muon", WARM_UP_AND_DROP, weight_decay=0.1)
    return [descent.apart(stock, descent.run(keras, "Muon", WARM_UP_AND_DROP, weight_decay=0.1)),
            descent.apart(ours, descent.run(keras, "our Muon", WARM_UP_AND_DROP, weight_decay=0.1))]


@needs_both
def test_muon(torch, keras, rng, recorded):
    recorded(*of_muon(torch, keras, rng, scale="original"))


@needs_both
def test_muon_at_one_scale(torch, keras, rng, recorded):
    recorded(*of_muon(torch, keras, rng, scale="match_rms_adamw"))


@needs_both
def test_clipping_of_the_global_norm(torch, keras, rng, recorded):
    """PyTorch adds 1e-6 to a norm, which shows where gradients are small. Gradients below the limit stay as they are,
    in both."""
    descent, max_norm = Descent(rng, scale=1e-4), 3e-4
    norms = np.linalg.norm(descent.gradients.reshape(STEPS, -1), axis=1)
    descent.gradients[0] *= 0.5 * max_norm / norms[0]
    assert norms[1:].min() > max_norm
    reference = torch.optimize("SGD", {}, descent.weights, descent.gradients, CONSTANT, max_norm=max_norm)
    recorded(descent.apart(reference, descent.run(keras, "SGD", CONSTANT, global_clipnorm=max_norm)),
             descent.apart(reference, descent.run(keras, "our SGD", CONSTANT, max_norm=max_norm)))


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
        choose_precision("fp16", "cpu", gpu_has_bf16=False)
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


# The page itself


def test_every_row_names_a_test_and_every_test_has_a_row():
    tree = ast.parse(Path(__file__).read_text())
    holding = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)
               and "recorded" in [argument.arg for argument in node.args.args] and node.name.startswith("test_")}
    named = [row.test for row in rows()]
    assert len(named) == len(set(named))
    assert set(named) == holding


def test_page_states_versions():
    text = PAGE.read_text()
    for package in ("torch", "torchvision", "torchmetrics", "lightning", "tensorflow", "keras"):
        assert re.search(rf"\b{package} \d+\.\d+", text), f"{PAGE.name} does not say which {package} was measured"
