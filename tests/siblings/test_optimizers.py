"""Every optimizer in both siblings is its formula, which is written here in NumPy, under all rules at once."""

from itertools import product
from unittest import mock

import numpy as np
import pytest

from shared.config import Config, parse_config
from shared.training.schedule import tabulate_rates

EPOCHS, STEPS, PARTS = 2, 5, 2
# In the neutral layout: a first and a last layer, kernels wide and tall, a depthwise one, and what does not decay.
SHAPES = {"cls_token": (1, 1, 4), "conv1.weight": (4, 3, 3, 3), "layer1.conv.weight": (6, 4, 3, 3),
          "layer1.depthwise.weight": (6, 1, 3, 3), "layer1.row.weight": (6, 4, 3), "layer1.norm.weight": (6,),
          "layer1.norm.bias": (6,), "layer2.wide.weight": (5, 6), "layer2.tall.weight": (8, 3), "fc.weight": (3, 5),
          "fc.bias": (3,)}
NORM_BIAS = "layer1.norm.bias"
HIDDEN = ("layer1.conv.weight", "layer1.row.weight", "layer2.wide.weight", "layer2.tall.weight")  # what Muon takes
ALONE = ("optimizer.weight_decay=0", "schedule.name=constant", "schedule.warmup_epochs=0")
RULES = ("optimizer.weight_decay=0.1", "optimizer.backbone_lr_factor=0.3", "train.grad_clip=20",
         "train.accumulate=2", "model.freeze=backbone", "train.unfreeze_epoch=1", "schedule.warmup_epochs=0.4",
         "optimizer.norm_bias_lr_factor=4")
ALL_DECAY = (*ALONE[1:], "optimizer.weight_decay=0.1", "optimizer.decay_norm_and_bias=true",
             "optimizer.norm_bias_lr_factor=4")


def sgd(weight, gradient, state, rate, decay, step, is_hidden):
    gradient = gradient + decay * weight
    state["v"] = 0.9 * state.get("v", 0) + gradient
    return weight - rate * (gradient + 0.9 * state["v"])


def adam(weight, gradient, state, rate, decay, step, is_hidden):
    gradient = gradient + decay * weight
    state["m"] = 0.8 * state.get("m", 0) + 0.2 * gradient
    state["v"] = 0.95 * state.get("v", 0) + 0.05 * gradient**2
    return weight - rate * state["m"] / (1 - 0.8**step) / (np.sqrt(state["v"] / (1 - 0.95**step)) + 1e-3)


def adamw(weight, gradient, state, rate, decay, step, is_hidden):
    return adam(weight, gradient, state, rate, 0, step, is_hidden) - rate * decay * weight


def lion(weight, gradient, state, rate, decay, step, is_hidden):
    mean = state.get("m", 0)
    state["m"] = 0.95 * mean + 0.05 * gradient
    return weight - rate * (np.sign(0.8 * mean + 0.2 * gradient) + decay * weight)


def muon(weight, gradient, state, rate, decay, step, is_hidden):
    if not is_hidden:
        return adamw(weight, gradient, state, rate, decay, step, is_hidden)
    state["m"] = 0.9 * state.get("m", 0) + gradient
    x = (gradient + 0.9 * state["m"]).reshape(len(weight), -1)
    size = 0.2 * np.sqrt(max(x.shape))
    x /= np.linalg.norm(x)
    for _ in range(5):
        x = 3.4445 * x + (-4.7750 * x @ x.T + 2.0315 * x @ x.T @ x @ x.T) @ x
    return weight - rate * (size * x.reshape(weight.shape) + decay * weight)


def rmsprop_of_torch(weight, gradient, state, rate, decay, step, is_hidden):
    gradient = gradient + decay * weight
    state["v"] = 0.99 * state.get("v", 0) + 0.01 * gradient**2
    return weight - rate * gradient / (np.sqrt(state["v"]) + 1e-8)


def rmsprop_of_keras(weight, gradient, state, rate, decay, step, is_hidden):
    state["v"] = 0.9 * state.get("v", 0) + 0.1 * gradient**2
    return weight - rate * (gradient / np.sqrt(state["v"] + 1e-7) + decay * weight)


FORMULAS = {"sgd": sgd, "adam": adam, "adamw": adamw, "lion": lion, "muon": muon,
            "rmsprop": {"lightning": rmsprop_of_torch, "keras": rmsprop_of_keras}}


def configure(name: str, words: tuple[str, ...]) -> Config:
    config = parse_config([f"train.epochs={EPOCHS}", "optimizer.lr=0.1", "optimizer.beta1=0.8", "optimizer.beta2=0.95",
                           "optimizer.eps=1e-3", "hardware.precision=fp64", "hardware.threads=1",
                           "hardware.accelerator=cpu", *words], "", "")
    config.optimizer.name = name  # RMSprop is in no sibling's table
    return config


def is_kernel(name: str) -> bool:
    return len(SHAPES[name]) > 1 and name != "cls_token"


def decays(config: Config, name: str) -> bool:
    return is_kernel(name) or config.optimizer.decay_norm_and_bias


def draw(parts: int) -> tuple[dict, list]:
    """Weights, and gradients by step, part and name; some are longer than 20 altogether, some are not."""
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
    return weights, [[{name: (0.3 + step) / 3 * (0.5 + rng.standard_normal(shape)) for name, shape in SHAPES.items()}
                      for _ in range(parts)] for step in range(EPOCHS * STEPS)]


def descend(formula, config: Config, weights: dict, gradients: list) -> tuple[dict, list[bool]]:
    """The weights at the end, and at which steps the gradient was clipped."""
    settings, rates = config.optimizer, tabulate_rates(config, STEPS)
    start, state, clipped = config.train.unfreeze_epoch * STEPS, {name: {} for name in weights}, []
    for step, parts in enumerate(gradients):
        mean = {name: np.mean([part[name] for part in parts], axis=0) for name in weights
                if name.startswith("fc.") or step >= start}
        norm = np.sqrt(sum((gradient**2).sum() for gradient in mean.values()))
        factor = min(1, config.train.grad_clip / (norm + 1e-6)) if config.train.grad_clip else 1
        clipped.append(factor < 1)
        for name, gradient in mean.items():
            is_head, times = name.startswith("fc."), settings.norm_bias_lr_factor if name == NORM_BIAS else 1
            weights[name] = formula(weights[name], factor * gradient, state[name],
                                    rates[step] * times * (1 if is_head else settings.backbone_lr_factor),
                                    settings.weight_decay / times if decays(config, name) else 0,
                                    step + 1 - (0 if is_head else start), name in HIDDEN)
    return weights, clipped


def update(sibling: str, name: str, words: tuple[str, ...], weights: dict, gradients: list) -> dict:
    """The weights after the sibling's own optimizer has had all gradients."""
    return {"lightning": update_lightning, "keras": update_keras}[sibling](configure(name, words), weights, gradients)


def update_lightning(config: Config, weights: dict, gradients: list) -> dict:
    """Through the Trainer, which clips and accumulates, with a loss whose gradients these are."""
    import lightning as L
    import torch
    from torch import nn
    from torch.utils.data import DataLoader

    from lightning_project import optim
    from lightning_project.callbacks import BackboneFreezer
    from lightning_project.classifier import Classifier
    from lightning_project.runtime import build_runtime

    class Given(L.LightningModule):
        configure_optimizers = Classifier.configure_optimizers

        def __init__(self, model: nn.Module):
            super().__init__()
            self.config, self.model, self.steps = config, model, STEPS
            self.decayed = optim.find_decayed(config, model)

        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            part = gradients[self.trainer.global_step][batch_idx % config.train.accumulate]
            return sum((parameter * torch.tensor(part[name])).sum()
                       for name, parameter in self.model.named_parameters())

    model = nn.Module()
    for name, weight in weights.items():
        module, (*path, leaf) = model, name.split(".")
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, nn.LayerNorm(6) if part == "norm" else nn.Module())
            module = getattr(module, part)
        module.register_parameter(leaf, nn.Parameter(torch.tensor(weight)))
    callbacks = [BackboneFreezer(config)] if config.model.freeze != "none" else []
    trainer = L.Trainer(max_epochs=EPOCHS, callbacks=callbacks, enable_checkpointing=False, logger=False,
                        **build_runtime(config).trainer)
    with mock.patch.dict(optim.OPTIMIZERS, {"rmsprop": (torch.optim.RMSprop, lambda config: {})}):
        trainer.fit(Given(model), DataLoader(range(STEPS * config.train.accumulate)))
    return {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}


def update_keras(config: Config, weights: dict, gradients: list) -> dict:
    """Through `optimizer.apply`, as `fit` does."""
    import keras
    import tensorflow as tf

    from keras_project import optim
    from keras_project.runtime import build_runtime

    def to_keras(name: str, tensor: np.ndarray) -> np.ndarray:
        return np.moveaxis(tensor, (0, 1), (-1, -2)) if is_kernel(name) else tensor

    build_runtime(config)
    variables = {}
    for name, weight in weights.items():
        layer, _, leaf = name.rpartition(".")
        with keras.name_scope(layer or "tokens"):
            leaf = "beta" if name == NORM_BIAS else \
                {"bias": "bias", "cls_token": "cls_token"}.get(leaf, "kernel" if weight.ndim > 1 else "gamma")
            variables[name] = keras.Variable(to_keras(name, weight), dtype="float64", name=leaf)
    with mock.patch.dict(optim.OPTIMIZERS, {"rmsprop": (keras.optimizers.RMSprop, lambda config: {})}):
        optimizer = optim.build_optimizer(config, STEPS)
    optimizer.build(list(variables.values()))
    for step, part in product(range(EPOCHS * STEPS), range(config.train.accumulate)):
        learning = [name for name in variables if name.startswith("fc.") or step >= config.train.unfreeze_epoch * STEPS]
        optimizer.apply([tf.constant(to_keras(name, gradients[step][part][name])) for name in learning],
                        [variables[name] for name in learning])
    return {name: np.moveaxis(variable.numpy(), (-1, -2), (0, 1)) if is_kernel(name) else variable.numpy()
            for name, variable in variables.items()}


@pytest.mark.parametrize("words", [ALONE, RULES, ALL_DECAY], ids=["alone", "with all rules", "all decay"])
@pytest.mark.parametrize("name", FORMULAS)
def test_an_optimizer_is_its_formula(sibling, name, words):
    config = configure(name, words)
    formula = FORMULAS[name] if callable(FORMULAS[name]) else FORMULAS[name][sibling.name]
    weights, gradients = draw(config.train.accumulate)
    expected, clipped = descend(formula, config, dict(weights), gradients)
    if words is RULES:
        assert 0 < sum(clipped) < len(clipped)
    found = sibling.call(update, name, words, weights, gradients)
    for tensor, weight in expected.items():
        moved = np.abs(weight - weights[tensor]).max()
        assert moved > 1e-3, tensor
        np.testing.assert_allclose(found[tensor], weight, rtol=0, atol=1e-12 * moved, err_msg=tensor)


def matrices_of_muon(sibling: str, name: str) -> tuple[list[str], dict]:
    """The tensors of a model that Muon takes as matrices, and the shapes of all that train."""
    import importlib
    from types import SimpleNamespace

    package = f"{sibling}_project"
    models, optim, runtime = (importlib.import_module(f"{package}.{part}") for part in ("models", "optim", "runtime"))
    config = configure("muon", (f"model.name={name}",))
    runtime.build_runtime(config)
    model = models.build_model(config, SimpleNamespace(channels=3, classes=tuple("abc"), image_size=32))
    if sibling == "lightning":
        optimizer = optim.build_optimizer(config, model, optim.find_decayed(config, model))
        return ([name for name, one in model.named_parameters() if optimizer.is_hidden_matrix(name, one)],
                {name: tuple(one.shape) for name, one in model.named_parameters()})
    optimizer, state = optim.build_optimizer(config, STEPS), models.neutral_state(model)
    optimizer.build(model.trainable_variables)
    trained = {name: one for name, one in state.items() if one.variable.trainable}
    return ([name for name, one in trained.items() if optimizer.hidden[optimizer._get_variable_index(one.variable)]],
            {name: one.shape for name, one in trained.items()})


@pytest.mark.parametrize(("name", "left_out"), [
    ("resnet18", {"conv1.weight", "fc.weight"}), ("vit_tiny", {"patch_embed.proj.weight", "head.weight"}),
    ("efficientnet_b0", {"conv_stem.weight", "classifier.weight"})])
def test_muon_takes_kernels_and_matrices_between_the_first_layer_and_the_head(sibling, name, left_out):
    taken, shapes = sibling.call(matrices_of_muon, name)
    assert left_out <= shapes.keys()
    assert set(taken) == {tensor for tensor, shape in shapes.items()
                          if len(shape) in (2, 4) and ".conv_dw." not in tensor} - left_out
    assert len(taken) > 15


def heads_found(_) -> list[list[str]]:
    """The paths that are taken for the head's, in models of every kind that Keras has."""
    import keras
    from keras import layers

    from keras_project.update_rules import belong_to

    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__(name="own")
            self.first, self.fc = layers.Dense(3, name="fc2"), layers.Dense(2, name="fc")

        def call(self, inputs):
            return self.fc(self.first(inputs))

    def functional():
        inputs = keras.Input((4,))
        block = keras.Sequential([layers.Dense(3, name="fc")], name="block")
        return keras.Model(inputs, layers.Dense(2, name="fc")(block(inputs)))

    inputs = keras.Input((4,))
    models = [Subclassed(), functional(), keras.Model(inputs, layers.Dense(2, name="fc")(inputs)),
              keras.Sequential([keras.Input((4,)), layers.Dense(3, name="a"), layers.Dense(2, name="fc")], name="own")]
    models[0](keras.ops.zeros((1, 4)))
    return [[variable.path for variable, is_head in zip(model.weights, belong_to(["fc"], model.weights), strict=True)
             if is_head] for model in models]


def test_the_head_is_found_in_every_kind_of_model(sibling):
    if sibling.name != "keras":
        pytest.skip("PyTorch's modules have names of their own")
    assert sibling.call(heads_found) == [["own/fc/kernel", "own/fc/bias"], ["fc/kernel", "fc/bias"],
                                         ["fc/kernel", "fc/bias"], ["own/fc/kernel", "own/fc/bias"]]
