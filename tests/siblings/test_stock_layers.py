"""Every parameter of every stock layer of a framework goes through a weight file."""

import contextlib
import inspect
import re
import sys
from types import ModuleType, SimpleNamespace
from unittest import mock

import numpy as np
import pytest

from shared.config import Config, ModelConfig
from shared.models import MODELS, ModelEntry
from shared.weights.file import read_weights, save_weights

# Expressions that make a layer, and the shapes of its inputs without the batch.
KERAS = {
    "AdditiveAttention()": [(3, 4), (3, 4)], "Attention(use_scale=True, score_mode='concat')": [(3, 4), (3, 4)],
    "BatchNormalization()": [(5, 5, 4)], "Bidirectional(layers.LSTM(3))": [(5, 4)], "Conv1D(3, 2)": [(5, 4)],
    "Conv2D(4, (3, 2), groups=2)": [(6, 5, 4)], "Conv3D(3, 2)": [(4, 4, 4, 2)], "Conv1DTranspose(3, 2)": [(5, 4)],
    "Conv2DTranspose(3, 2)": [(5, 5, 4)], "Conv3DTranspose(3, 2)": [(4, 4, 4, 2)], "ConvLSTM1D(3, 2)": [(3, 5, 2)],
    "ConvLSTM2D(3, 2)": [(3, 4, 4, 2)], "ConvLSTM3D(3, 2)": [(2, 4, 4, 4, 2)], "Dense(3)": [(4,)],
    "DepthwiseConv1D(2, depth_multiplier=2)": [(5, 4)], "DepthwiseConv2D(2, depth_multiplier=2)": [(5, 5, 4)],
    "EinsumDense('abc,cd->abd', (5, 3), bias_axes='d')": [(5, 4)], "Embedding(7, 3)": [(5,)], "GRU(3)": [(5, 4)],
    "RNN(layers.GRUCell(3))": [(5, 4)], "GroupNormalization(2)": [(5, 5, 4)], "LSTM(3)": [(5, 4)],
    "GroupQueryAttention(2, 4, 2)": [(3, 4), (3, 4)], "RNN(layers.LSTMCell(3))": [(5, 4)],
    "LayerNormalization()": [(5, 4)], "MultiHeadAttention(2, 3)": [(3, 4), (3, 4)], "Normalization()": [(4,)],
    "PReLU()": [(5, 5, 4)], "PReLU(shared_axes=[1, 2])": [(5, 5, 4)], "PReLU(shared_axes=[1, 2, 3])": [(5, 5, 4)],
    "RMSNormalization()": [(4,)], "ReversibleEmbedding(7, 3)": [(5,)], "STFTSpectrogram(frame_length=8)": [(32, 1)],
    "SeparableConv1D(3, 2, depth_multiplier=2)": [(5, 4)], "SeparableConv2D(3, 2, depth_multiplier=2)": [(5, 5, 4)],
    "SimpleRNN(3)": [(5, 4)], "RNN(layers.SimpleRNNCell(3))": [(5, 4)], "TimeDistributed(layers.Dense(3))": [(5, 4)],
    "RNN(layers.StackedRNNCells([layers.LSTMCell(3), layers.LSTMCell(2)]))": [(5, 4)],
    "SpectralNormalization(layers.Conv2D(3, 2))": [(5, 5, 4)],
}
PYTORCH = {
    "BatchNorm1d(4)": [(4,)], "BatchNorm2d(4)": [(4, 5, 5)], "BatchNorm3d(4)": [(4, 3, 3, 3)],
    "InstanceNorm1d(4, affine=True, track_running_stats=True)": [(4, 5)],
    "InstanceNorm2d(4, affine=True, track_running_stats=True)": [(4, 5, 5)],
    "InstanceNorm3d(4, affine=True, track_running_stats=True)": [(4, 3, 3, 3)],
    "GroupNorm(2, 4)": [(4, 5, 5)], "LayerNorm((4, 5))": [(4, 5)], "RMSNorm(4)": [(5, 4)], "PReLU(4)": [(4, 5, 5)],
    "PReLU()": [(4,)], "Linear(4, 3)": [(4,)], "Bilinear(4, 4, 3)": [(4,), (4,)], "Conv1d(4, 3, 2)": [(4, 5)],
    "Conv2d(4, 6, 2, groups=2)": [(4, 5, 5)], "Conv3d(2, 3, 2)": [(2, 4, 4, 4)], "ConvTranspose1d(4, 3, 2)": [(4, 5)],
    "ConvTranspose2d(4, 3, 2)": [(4, 5, 5)], "ConvTranspose3d(2, 3, 2)": [(2, 4, 4, 4)], "Embedding(7, 3)": [(5,)],
    "EmbeddingBag(7, 3)": [(5,)], "RNN(4, 3, batch_first=True)": [(5, 4)], "RNNCell(4, 3)": [(4,)],
    "LSTM(4, 3, 2, batch_first=True, bidirectional=True, proj_size=2)": [(5, 4)], "LSTMCell(4, 3)": [(4,)],
    "GRU(4, 3, batch_first=True)": [(5, 4)], "GRUCell(4, 3)": [(4,)],
    "MultiheadAttention(4, 2, batch_first=True)": [(5, 4)] * 3,
    "MultiheadAttention(4, 2, kdim=3, vdim=2, add_bias_kv=True, batch_first=True)": [(5, 4), (6, 3), (6, 2)],
    "TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 2)": [(5, 4)],
    "TransformerDecoder(nn.TransformerDecoderLayer(4, 2, 8, batch_first=True), 2)": [(5, 4)] * 2,
    "Transformer(4, 2, 1, 1, 8, batch_first=True)": [(5, 4)] * 2,
    "utils.parametrizations.weight_norm(nn.Conv2d(4, 3, 2))": [(4, 5, 5)],
    "utils.parametrizations.spectral_norm(nn.Linear(4, 3))": [(4,)],
}
CASES = {"keras": KERAS, "lightning": PYTORCH}
# Of the classes that have variables of their own: bridges to other frameworks, weighted losses, bases of others, what
# computes on GPUs alone, and what keeps random numbers between two calls.
LEFT_OUT = {
    "keras": {"FlaxLayer", "JaxLayer", "TFSMLayer", "TorchModuleWrapper"},
    "lightning": {"BCELoss", "BCEWithLogitsLoss", "CrossEntropyLoss", "LinearCrossEntropyLoss", "NLLLoss", "NLLLoss2d",
                  "MultiLabelSoftMarginLoss", "MultiMarginLoss", "RNNBase", "RNNCellBase", "ParameterDict",
                  "ParameterList", "SyncBatchNorm", "FractionalMaxPool2d", "FractionalMaxPool3d"}}


def draw_inputs(expression, shapes):
    draws = np.random.default_rng(0)
    if "Embedding" in expression:
        return [draws.integers(0, 7, (3, *shape)).astype(np.int32) for shape in shapes]
    return [draws.normal(size=(3, *shape)).astype(np.float32) for shape in shapes]


@contextlib.contextmanager
def as_a_model(sibling, build, head="head", first_kernel="head.weight"):
    """Within, `model.name=stock` is what `build()` returns."""
    place = ModuleType(f"{sibling}_project.models.stock")
    place.build_stock = lambda settings, channels, classes, image_size: build()
    with mock.patch.dict(sys.modules, {place.__name__: place}), \
            mock.patch.dict(MODELS, {"stock": ModelEntry("stock", head, first_kernel)}):
        yield


def build_stock(sibling, build, **entry):
    """The model that the sibling's `build_model` makes of `build()`."""
    import importlib

    from shared.config import parse_config

    # First, since TensorFlow takes no other number of threads, which later tests ask for, once it has computed.
    importlib.import_module(f"{sibling}_project.runtime").build_runtime(
        parse_config(["hardware.threads=1", "hardware.precision=fp32"], "test", ""))
    models = importlib.import_module(f"{sibling}_project.models")
    data = SimpleNamespace(channels=1, classes=("a", "b", "c"), image_size=8)
    with as_a_model(sibling, build, **entry):
        return models.build_model(Config(model=ModelConfig(name="stock")), data)


def keras_layer(expression, shapes):
    """A model of the layer and of a head, whose outputs are those of both."""
    import keras
    from keras import layers

    inputs = [keras.Input(shape, dtype="int32" if "Embedding" in expression else None) for shape in shapes]
    layer = eval(f"layers.{expression}", {"layers": layers})
    outputs = layer(*inputs) if isinstance(layer, layers.MultiHeadAttention | layers.GroupQueryAttention) \
        else layer(inputs if len(inputs) > 1 else inputs[0])
    return keras.Model(inputs, [outputs, layers.Dense(3, name="head")(layers.Flatten()(outputs))])


def pytorch_layer(expression, shapes):
    import torch
    from torch import nn

    class Stock(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = eval(f"nn.{expression}", {"nn": nn})
            example = [torch.from_numpy(one) for one in draw_inputs(expression, shapes)]
            self.head = nn.Linear(self.eval().features(*example).flatten(1).shape[1], 3)

        def features(self, *inputs):
            outputs = self.layer(*inputs)
            return outputs[0] if isinstance(outputs, tuple) else outputs

        def forward(self, *inputs):
            outputs = self.features(*inputs)
            return outputs, self.head(outputs.flatten(1))
    return Stock()


def predict(sibling, model, inputs):
    if sibling == "keras":
        return [np.asarray(one) for one in model(inputs if len(inputs) > 1 else inputs[0], training=False)]
    import torch

    with torch.no_grad():
        return [one.numpy() for one in model.eval()(*map(torch.from_numpy, inputs))]


def through_a_file(sibling, expression, path):
    """Outputs of a model before its weights went into a file, and of another before and after it read them."""
    import importlib

    models = importlib.import_module(f"{sibling}_project.models")
    shapes = CASES[sibling][expression]
    make = keras_layer if sibling == "keras" else pytorch_layer
    first, second = (build_stock(sibling, lambda: make(expression, shapes)) for _ in range(2))
    draws, inputs = np.random.default_rng(1), draw_inputs(expression, shapes)
    models.load_weights(first, {name: draws.uniform(0.5, 1.5, tensor.shape).astype(tensor.dtype)
                                for name, tensor in models.neutral_weights(first).items()})
    written = predict(sibling, first, inputs)
    weights = models.neutral_weights(first)
    save_weights(path, weights, Config(), ("a", "b", "c"))
    before = predict(sibling, second, inputs)
    models.load_weights(second, read_weights(path))
    return written, before, predict(sibling, second, inputs), {name: tensor.dtype.name
                                                               for name, tensor in weights.items()}


@pytest.mark.parametrize("expression", [*KERAS, *PYTORCH])
def test_a_stock_layer_goes_through_a_weight_file(sibling, expression, tmp_path):
    if expression not in CASES[sibling.name]:
        pytest.skip("a layer of the other framework")
    written, before, after, dtypes = sibling.call(through_a_file, expression, tmp_path / "weights.safetensors")
    assert len(dtypes) > 2  # more than the head's
    assert not np.array_equal(written[0], before[0])
    for one, other in zip(written, after, strict=True):
        np.testing.assert_array_equal(one, other)


def with_variables(sibling):
    """Names of the stock layers in whose source a variable is made, and of those that the cases above name."""
    if sibling == "keras":
        from keras import layers as place
        base, pattern = place.Layer, r"add_weight\(|add_variable\(|backend\.Variable\("
    else:
        from torch import nn as place
        base, pattern = place.Module, r"\bParameter\(|register_(buffer|parameter)\("
    found = {}
    for name, kind in inspect.getmembers(place, inspect.isclass):
        sources = "".join(inspect.getsource(one) for one in kind.__mro__ if issubclass(one, base) and one is not base)
        if issubclass(kind, base) and re.search(pattern, sources) and not name.startswith("Lazy"):
            found[kind] = name
    named = {getattr(place, word, None) for word in re.findall(r"\w+", " ".join(CASES[sibling]))}
    return set(found.values()), {found[kind] for kind in named if kind in found}


@pytest.mark.slow
def test_no_stock_layer_with_variables_is_missing(sibling):
    found, tried = sibling.call(with_variables)
    assert len(found) > 30
    assert found - tried == LEFT_OUT[sibling.name]
