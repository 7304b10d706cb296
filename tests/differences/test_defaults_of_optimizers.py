"""Where the defaults of optimizers differ. Differences are relative to how far PyTorch's weights moved."""

import numpy as np

from tests.conftest import needs_both
from tests.differences.measuring import Framework, apart

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
