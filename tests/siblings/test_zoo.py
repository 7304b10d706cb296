"""Every model in both siblings: built, counted, trained for a step, and the same as timm's of that name."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from shared.models import MODELS

SIZE, CHANNELS, CLASSES = 32, 3, 5


def start(sibling, name, *words, size=SIZE, classes=CLASSES, channels=CHANNELS):
    """(config, the sibling's `models` module, an untrained model), in fp64 where `words` say so."""
    import importlib

    from shared.config import parse_config

    usual = {"patch_size": "model.patch_size=16", "stem": "model.stem=large"}
    config = parse_config([f"model.name={name}", "hardware.threads=1", "hardware.precision=fp32",
                           *(usual[key] for key in MODELS[name].settings if key in usual), *words], "test", "")
    importlib.import_module(f"{sibling}_project.runtime").build_runtime(config)
    models = importlib.import_module(f"{sibling}_project.models")
    data = SimpleNamespace(channels=channels, classes=tuple(map(str, range(classes))), image_size=size)
    return config, models, models.build_model(config, data)


def batch(channels=CHANNELS):
    """Images (4, C, S, S) and labels (4,)."""
    draws = np.random.default_rng(0)
    return draws.normal(size=(4, channels, SIZE, SIZE)).astype(np.float32), np.arange(4)


def freeze(sibling, config, model):
    """What the sibling's callback does in a frozen epoch."""
    import importlib

    callback = importlib.import_module(f"{sibling}_project.callbacks").BackboneFreezer(config)
    if sibling == "lightning":
        module = SimpleNamespace(model=model)
        callback.setup(None, module, "fit")
        callback.on_train_batch_start(SimpleNamespace(current_epoch=0), module, None, 0)
    else:
        callback.set_model(SimpleNamespace(layers=model.layers, make_train_function=lambda force: None))
        callback.on_train_begin()
        callback.on_epoch_begin(0)


def loss_and_gradients(sibling, model, images, labels, frozen=None, optimizer=None):
    """The loss in training mode, with what the config `frozen` freezes, and the gradient by name (None where there is
    none), by which an optimizer takes a step."""
    if sibling == "lightning":
        import torch
        from torch.nn import functional as F

        model.train().zero_grad()
        if frozen:
            freeze(sibling, frozen, model)
        loss = F.cross_entropy(model(torch.from_numpy(images)), torch.from_numpy(labels))
        loss.backward()
        if optimizer:
            optimizer.step()
        return loss.item(), {name: None if parameter.grad is None else parameter.grad.numpy()
                             for name, parameter in model.named_parameters() if parameter.requires_grad}
    import tensorflow as tf

    from keras_project.models.neutral import neutral_state
    if frozen:
        freeze(sibling, frozen, model)
    with tf.GradientTape() as tape:
        logits = model(images.transpose(0, 2, 3, 1), training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    state = {name: tensor for name, tensor in neutral_state(model).items() if tensor.variable.trainable}
    gradients = tape.gradient(loss, [tensor.variable.value for tensor in state.values()])
    if optimizer:
        optimizer.apply(gradients, [tensor.variable for tensor in state.values()])
    return float(loss), {name: None if gradient is None else tensor.to_neutral(gradient.numpy())
                         for (name, tensor), gradient in zip(state.items(), gradients, strict=True)}


def one_step(sibling, name):
    """Gradients and the loss before and after a step down the gradient."""
    from shared.weights.initial import draw_initial_weights

    frozen, models, model = start(sibling, name, "model.freeze=backbone", "optimizer.name=adamw")
    trainable = set(models.neutral_shapes(model)) - models.neutral.untrained_names(model)
    weights = draw_initial_weights(models.neutral_shapes(model), 0)
    models.load_weights(model, weights)
    loss, gradients = loss_and_gradients(sibling, model, *batch())
    found = {"without": [name for name, gradient in gradients.items()
                          if gradient is None or not np.isfinite(gradient).all() or not gradient.any()],
              "gradients": len(gradients), "trainable": len(trainable),
             "head": [name for name in MODELS[name].head_tensors if name in trainable],
             "depthwise": any(len(shape) == 4 and shape[0] > shape[1] == 1
                              for shape in models.neutral_shapes(model).values())}
    # So short that the loss falls by a hundredth of itself, as far as the gradient can tell.
    rate = 0.01 * loss / sum(float((gradient**2).sum()) for gradient in gradients.values())
    held = models.neutral_weights(model)  # its BatchNorm statistics have moved
    models.load_weights(model, held | {name: held[name] - rate * gradient
                                       for name, gradient in gradients.items()})
    found["losses"] = loss, loss_and_gradients(sibling, model, *batch())[0]
    held = models.neutral_weights(model)
    optimizer = optimizer_of(sibling, frozen, model)
    _, gradients = loss_and_gradients(sibling, model, *batch(), frozen, optimizer)
    found["learn while frozen"] = [name for name, gradient in gradients.items() if gradient is not None]
    after = models.neutral_weights(model)
    found["moved while frozen"] = [name for name in held if held[name].tobytes() != after[name].tobytes()]
    return found


def optimizer_of(sibling, config, model):
    """The config's optimizer, which decays weights whether they have a gradient or not if it is given them."""
    import importlib

    optim = importlib.import_module(f"{sibling}_project.optim")
    if sibling == "lightning":
        return optim.build_optimizer(config, model, optim.find_decayed(config, model))
    optimizer = optim.build_optimizer(config, 10)
    optimizer.build(model.trainable_variables)
    return optimizer


def count_parameters(sibling, name):
    import importlib

    _, models, model = start(sibling, name, size=MODELS[name].published.image_size, classes=1000)
    untrained = importlib.import_module(f"{sibling}_project.models.neutral").untrained_names(model)
    return sum(math.prod(shape) for name, shape in models.neutral_shapes(model).items() if name not in untrained)


@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name].published])
def test_a_model_has_as_many_parameters_as_was_published(sibling, name):
    assert sibling.call(count_parameters, name) == MODELS[name].published.parameters


# Without those that have another's layers, only more of them.
@pytest.mark.parametrize("name", [name for name in MODELS if name not in ("efficientnet_b3", "vit_base")])
def test_a_model_is_whole_and_learns(sibling, name):
    found = sibling.call(one_step, name)
    assert found["without"] == []
    assert found["gradients"] == found["trainable"]
    assert found["depthwise"] == MODELS[name].depthwise
    before, after = found["losses"]
    assert np.isfinite(before)
    assert after < before
    assert found["learn while frozen"] == found["head"] != []
    # Neither decay nor BatchNorm's statistics move what is frozen; the first step of warm-up moves the head.
    assert found["moved while frozen"] == found["head"]


def choose_precision(sibling, name):
    """What hardware.precision=auto is on a CPU that has bf16."""
    import importlib
    from unittest import mock

    from shared.config import parse_config

    words = f"model.name={name}", "hardware.precision=auto", "hardware.threads=1", "hardware.accelerator=cpu"
    config = parse_config(words, "test", "")
    with mock.patch("shared.machine.hardware.cpu_has_bf16", return_value=True):
        return importlib.import_module(f"{sibling}_project.runtime").build_runtime(config).facts["precision"]


@pytest.mark.parametrize(("name", "precision"), [("efficientnet_b0", "fp32"), ("resnet18", "bf16")])
def test_depthwise_convolutions_are_computed_in_fp32_on_a_cpu(sibling, name, precision):
    assert sibling.call(choose_precision, name) == precision


def single_pixel(sibling, size, stride, depthwise):
    """Gradient of a convolution's kernel, (32 or 256, 256 or 1, size, size), for images of one pixel, in bf16 and fp32.
    """
    draws = np.random.default_rng(0)
    shape = (256, 1, size, size) if depthwise else (32, 256, size, size)
    images, kernel = draws.normal(size=(16, 256, 1, 1)), draws.normal(size=shape)
    if sibling == "lightning":
        import torch

        from lightning_project.models.layers import Conv2d
        layer = Conv2d(256, shape[0], size, stride, size // 2, groups=256 // shape[1], bias=False)
        layer.weight.data = torch.from_numpy(kernel).float()

        def gradient(half):
            layer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                layer(torch.from_numpy(images).float()).float().square().sum().backward()
            return layer.weight.grad.numpy().copy()
        return [gradient(half) for half in (True, False)]
    import keras
    import tensorflow as tf

    from keras_project.models.layers import convolution, depthwise_convolution
    from keras_project.models.neutral import neutral_state

    def gradient(policy):
        keras.config.set_dtype_policy(policy)
        inputs = keras.Input((1, 1, 256))
        outputs = depthwise_convolution(inputs, size, stride, "conv") if depthwise \
            else convolution(inputs, 32, size, stride, "conv")
        model = keras.Model(inputs, outputs)
        weight = neutral_state(model)["conv.weight"]
        weight.assign(kernel)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(tf.cast(model(images.transpose(0, 2, 3, 1)), tf.float32)))
        return weight.to_neutral(tape.gradient(loss, weight.variable.value).numpy())
    return [gradient(policy) for policy in ("mixed_bfloat16", "float32")]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("size", "depthwise"), [(3, False), (7, False), (5, True)])
def test_bf16_gradients_of_a_single_pixel(sibling, size, stride, depthwise):
    half, full = sibling.call(single_pixel, size, stride, depthwise)
    assert np.linalg.norm(half - full) < 0.02 * np.linalg.norm(full)  # bf16 keeps 8 bits


def drops(sibling, rate):
    """Outputs of the sibling's stochastic depth for ones (1000, 2, 2), in training and in evaluation."""
    if sibling == "lightning":
        import torch

        from lightning_project.models.resnet import StochasticDepth
        layer, ones = StochasticDepth(rate, "row"), torch.ones(1000, 2, 2)
        return layer.train()(ones).numpy(), layer.eval()(ones).numpy()
    from keras_project.models.layers import StochasticDepth
    layer, ones = StochasticDepth(rate), np.ones((1000, 2, 2), np.float32)
    return np.asarray(layer(ones, training=True)), np.asarray(layer(ones, training=False))


def test_stochastic_depth_drops_whole_images_and_keeps_the_mean(sibling):
    training, evaluation = sibling.call(drops, 0.25)
    assert (evaluation == 1).all()
    per_image = training.reshape(1000, 4)
    assert (per_image == per_image[:, :1]).all()
    assert set(np.unique(per_image.round(5))) == {0.0, np.float32(1 / 0.75).round(5)}
    # 4.5 standard deviations of the share of 1,000 draws.
    assert (per_image[:, 0] == 0).mean() == pytest.approx(0.25, abs=0.062)


def regularised(sibling, name):
    """Logits of one batch, twice in training mode and twice in evaluation."""
    _, models, model = start(sibling, name, "model.dropout=0.5", "model.stochastic_depth=0.5")
    from shared.weights.initial import draw_initial_weights

    models.load_weights(model, draw_initial_weights(models.neutral_shapes(model), 0))
    images, _ = batch()
    if sibling == "lightning":
        import torch

        with torch.no_grad():
            evaluated = [model.eval()(torch.from_numpy(images)).numpy() for _ in range(2)]
            return [model.train()(torch.from_numpy(images)).numpy() for _ in range(2)], evaluated
    images = images.transpose(0, 2, 3, 1)
    evaluated = [model(images, training=False).numpy() for _ in range(2)]
    return [model(images, training=True).numpy() for _ in range(2)], evaluated


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "vit_tiny"])
def test_dropout_and_stochastic_depth_draw_in_training_alone(sibling, name):
    training, evaluation = sibling.call(regularised, name)
    assert (evaluation[0] == evaluation[1]).all()
    assert not np.allclose(training[0], training[1])


def exported(sibling, name):
    """Logits of seven images by the model, and by its export, which was made with two."""
    import torch

    _, _, model = start(sibling, name)
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(7, CHANNELS, SIZE, SIZE)).astype(np.float32))
    exported = torch.export.export(model.eval(), (images[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},))
    with torch.no_grad():
        return model(images).numpy(), exported.module()(images).numpy()


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "vit_tiny"])
def test_the_size_of_a_batch_is_no_constant_of_a_model(sibling, name):
    if sibling.name != "lightning":
        pytest.skip("a Keras model has no size of a batch")
    expected, found = sibling.call(exported, name)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
