"""What the tensors of a user's own model are called, and which models are refused when they are built."""

import importlib
import sys
from types import ModuleType
from unittest import mock

import numpy as np
import pytest

from shared.config import Config, ModelConfig
from shared.errors import UserError
from shared.models import MODELS, ModelEntry
from tests.siblings.test_stock_layers import build_stock


def keras_models():
    """Functions that build a model of layers 'first' and 'head', or of what each says, by kind."""
    import keras
    from keras import layers

    def chain(*parts):
        inputs = x = keras.Input((4,))
        for part in parts:
            x = part(x)
        return keras.Model(inputs, x)

    def block(**named):
        class Block(layers.Layer):
            def __init__(self):
                super().__init__(name="block")
                self.inner, self.scale = layers.Dense(4, name="inner", **named), None

            def build(self, shape):
                self.scale = self.add_weight((), "ones", name="scale")

            def call(self, inputs):
                return self.scale * self.inner(inputs)
        return Block()

    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__(name="first")  # as its layer
            self.first, self.classifier = layers.Dense(4, name="first"), layers.Dense(3, name="head")

        def call(self, inputs):
            return self.classifier(self.first(inputs))

    def subclassed():
        model = Subclassed()
        model(np.zeros((1, 4), np.float32))
        return model

    def first():
        return layers.Dense(4, name="first")

    def head():
        return layers.Dense(3, name="head")

    def shared():
        twice = first()
        return chain(twice, layers.ReLU(), twice, head())
    return {
        "functional": lambda: chain(first(), head()), "shared layer": shared, "subclassed": subclassed,
        "sequential": lambda: keras.Sequential([keras.Input((4,)), first(), head()]),
        "unnamed": lambda: chain(layers.Dense(4), layers.Dense(4), head()),
        "nested model": lambda: chain(keras.Sequential([keras.Input((4,)), first()], name="body"), head()),
        "layer in a layer": lambda: chain(block(), head()),
        "the same name in two models": lambda: chain(chain(first()), chain(first()), head()),
        "a head within": lambda: chain(first(), keras.Sequential([keras.Input((4,)), head()], name="top")),
    }


def names_of(sibling, kind):
    """Names of a model's tensors, twice built, or what is said against it."""
    build, found = keras_models()[kind], []
    for _ in range(2):
        try:
            model = build_stock(sibling, build, head="top.head" if kind == "a head within" else "head",
                                first_kernel="top.head.weight" if kind == "a head within" else "head.weight")
            found.append(list(importlib.import_module(f"{sibling}_project.models").neutral_weights(model)))
        except UserError as error:
            found.append(str(error))
    return found


def find_head(sibling, kind):
    """Which of a model's tensors the optimizer takes for those of the head."""
    from keras_project.models.neutral import neutral_state
    from keras_project.optim import build_optimizer

    model = build_stock(sibling, keras_models()[kind])
    optimizer = build_optimizer(Config(model=ModelConfig(name="vit_tiny")), 10)  # whose head is called "head" too
    optimizer.build(model.trainable_variables)
    return [name for name, tensor in neutral_state(model).items() if optimizer.is_of_head(tensor.variable)]


@pytest.mark.parametrize("kind", ["functional", "sequential", "subclassed", "nested model"])
def test_keras_finds_the_head_of_any_model(sibling, kind):
    if sibling.name != "keras":
        pytest.skip("PyTorch's names begin without the model's")
    assert sibling.call(find_head, kind) == ["head.weight", "head.bias"]


DENSE = ["first.weight", "first.bias"]
HEAD = ["head.weight", "head.bias"]


@pytest.mark.parametrize(("kind", "expected"), [
    ("functional", DENSE + HEAD), ("shared layer", DENSE + HEAD), ("subclassed", DENSE + HEAD),
    ("sequential", DENSE + HEAD),
    ("unnamed", ["dense.weight", "dense.bias", "dense_1.weight", "dense_1.bias", *HEAD]),
    ("nested model", ["body.first.weight", "body.first.bias", *HEAD]),
    ("layer in a layer", ["block.scale", "block.inner.weight", "block.inner.bias", *HEAD]),
    ("the same name in two models", "two variables of the model, first/kernel and first/kernel, would both be called "
                                    "first.weight in a weight file; give their layers different names"),
    ("a head within", "top.head of model.name=stock is a layer within another; make the head a layer of the model "
                      "itself, since model.freeze=backbone goes by the layers of the model"),
])
def test_keras_variables_are_called_by_all_the_layers_they_lie_in(sibling, kind, expected):
    if sibling.name != "keras":
        pytest.skip("PyTorch's names are those of the state_dict")
    assert sibling.call(names_of, kind) == [expected] * 2


def refuse(sibling, kind):
    """What `build_model` says against a model that is not what its entry says, or has what a file cannot hold."""
    entry = {"head": {"head": "fc"}, "first kernel": {"first_kernel": "conv1.weight"}}.get(kind, {})
    outputs = 5 if kind == "outputs" else 3
    if sibling == "keras":
        import keras
        from keras import layers

        def build():
            inputs = keras.Input((4,))
            return keras.Model(inputs, layers.Dense(outputs, name="head")(layers.Dense(4, name="first")(inputs)))
    else:
        from collections import OrderedDict

        from torch import nn

        class Counting(nn.Linear):
            def get_extra_state(self):
                return {"steps": 3}

        def build():
            first = nn.LazyLinear(4) if kind == "lazy" else (Counting if kind == "state" else nn.Linear)(4, 4)
            return nn.Sequential(OrderedDict(first=first, head=nn.Linear(4, outputs)))
    try:
        build_stock(sibling, build, **entry)
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize(("kind", "says"), [
    ("head", "model.name=stock has no fc.weight, which its entry in shared/models.py calls its head; name the module "
             "there that makes the logits, its last ones are first, head"),
    ("first kernel", "model.name=stock has no conv1.weight, which its entry in shared/models.py calls its first "
                     "kernel; name the tensor there that sees the images, its first ones are first.weight, "
                     "first.bias, head.weight"),
    ("outputs", "head of model.name=stock gives 5 outputs, expected 3, one for each class; build it for the number of "
                "`classes` that its function is given"),
    ("nothing", None),
])
def test_a_model_that_is_not_what_its_entry_says_is_refused(sibling, kind, says):
    assert sibling.call(refuse, kind) == says


@pytest.mark.parametrize(("kind", "says"), [
    ("lazy", "first.weight of the model has no shape yet; give its layer the number of inputs, as nn.Linear takes it, "
             "in place of a Lazy class"),
    ("state", "first._extra_state of the model is a dict, and a weight file holds nothing but tensors; keep it in a "
              "buffer, or out of the model's state_dict"),
])
def test_what_a_weight_file_cannot_hold_is_refused(sibling, kind, says):
    if sibling.name != "lightning":
        pytest.skip("Keras has neither")
    assert sibling.call(refuse, kind) == says


def find(sibling, place, source):
    """What `find_entry` says of a model whose file, `place` of the sibling's models, holds `source`."""
    models = importlib.import_module(f"{sibling}_project.models")
    name = f"{models.__name__}.{place}"
    with mock.patch.dict(MODELS, {"stock": ModelEntry(place, "head", "head.weight")}), mock.patch.dict(sys.modules):
        if source is not None:
            sys.modules[name] = ModuleType(name)
            exec(source, sys.modules[name].__dict__)
        try:
            return models.find_entry("stock").builder
        except UserError as error:
            return str(error)


@pytest.mark.parametrize("source", [None, "def build(): pass"])
def test_a_model_without_a_builder_is_refused(sibling, source):
    assert sibling.call(find, "nowhere", source) == (
        f"model.name=stock has no function build_nowhere in {sibling.name}_project/models/nowhere.py; write it, or "
        "train with the other sibling")
    assert sibling.call(find, "here", "def build_here(): pass") == "here"
