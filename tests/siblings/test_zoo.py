"""Every model in both siblings: built, counted, trained for a step, and the same as timm's of that name."""

from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from safetensors.numpy import load_file

from shared.models import MODELS, VITS
from tests.conftest import train

SIZE, CHANNELS, CLASSES = 32, 3, 5


def start(sibling, name, *words, size=SIZE, classes=CLASSES, channels=CHANNELS):
    """(config, the sibling's `models` module, an untrained model), in fp64 where `words` say so."""
    import importlib

    from shared.config import parse_config

    config = parse_config([f"model.name={name}", "model.patch_size=16", "model.stem=large", "hardware.threads=1",
                    "hardware.precision=fp32", *words], "test", "")
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
        callback.on_train_batch_start(SimpleNamespace(current_epoch=0), SimpleNamespace(model=model), None, 0)
    else:
        callback.set_model(SimpleNamespace(layers=model.layers, make_train_function=lambda force: None))
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
                             for name, parameter in model.named_parameters()}
    import tensorflow as tf

    from keras_project.models import neutral_state, to_neutral
    if frozen:
        freeze(sibling, frozen, model)
    with tf.GradientTape() as tape:
        logits = model(images.transpose(0, 2, 3, 1), training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    state = {name: variable for name, variable in neutral_state(model).items() if variable.trainable}
    gradients = tape.gradient(loss, [variable.value for variable in state.values()])
    if optimizer:
        optimizer.apply(gradients, list(state.values()))
    return float(loss), {name: None if gradient is None else to_neutral(gradient.numpy())
                         for name, gradient in zip(state, gradients, strict=True)}


def one_step(sibling, name):
    """Counts, gradients and the loss before and after a step down the gradient."""
    from shared.weights.initial import draw_initial_weights

    entry = MODELS[name].published
    _, models, model = start(sibling, name, size=entry.image_size, classes=1000)
    found = {"count": models.parameter_count(model)}
    frozen, models, model = start(sibling, name, "model.freeze=backbone", "optimizer.name=adamw")
    weights = draw_initial_weights(models.neutral_shapes(model), 0)
    models.load_weights(model, weights)
    loss, gradients = loss_and_gradients(sibling, model, *batch())
    found |= {"without": [name for name, gradient in gradients.items()
                          if gradient is None or not np.isfinite(gradient).all() or not gradient.any()],
              "gradients": len(gradients), "trainable": sum(".running_" not in name for name in weights)}
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
        return optim.build_optimizer(config, model, optim.decayed(config, model))
    optimizer = optim.build_optimizer(config, 10)
    optimizer.build(model.trainable_variables)
    return optimizer


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_whole_and_learns(sibling, name):
    found = sibling.call(one_step, name)
    assert found["count"] == MODELS[name].published.parameters
    assert found["without"] == []
    assert found["gradients"] == found["trainable"]
    before, after = found["losses"]
    assert np.isfinite(before)
    assert after < before
    assert found["learn while frozen"] == list(MODELS[name].head_tensors)
    # Neither decay nor BatchNorm's statistics move what is frozen; the first step of warm-up moves the head.
    assert found["moved while frozen"] == list(MODELS[name].head_tensors)


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

    from keras_project.models import from_neutral, to_neutral
    from keras_project.models.layers import DepthwiseConv, convolution

    def gradient(policy):
        keras.config.set_dtype_policy(policy)
        inputs = keras.Input((1, 1, 256))
        outputs = DepthwiseConv(size, stride)(inputs) if depthwise else convolution(inputs, 32, size, stride, "conv")
        model = keras.Model(inputs, outputs)
        model.layers[-1].kernel.assign(from_neutral(kernel))
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(tf.cast(model(images.transpose(0, 2, 3, 1)), tf.float32)))
        return to_neutral(tape.gradient(loss, model.layers[-1].kernel.value).numpy())
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

        from lightning_project.models.layers import StochasticDepth
        layer, ones = StochasticDepth(rate), torch.ones(1000, 2, 2)
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


CHECKPOINTING = ("model.gradient_checkpointing=false", "model.gradient_checkpointing=true")


def with_and_without(sibling, *words):
    """Loss and gradients in fp64 without gradient checkpointing and with it."""
    from shared.weights.initial import draw_initial_weights

    found = []
    for choice in CHECKPOINTING:
        _, models, model = start(sibling, "vit_tiny", "hardware.precision=fp64", *words, choice)
        models.load_weights(model, draw_initial_weights(models.neutral_shapes(model), 0))
        if sibling == "lightning":
            import torch

            model.double()
            torch.manual_seed(0)  # Keras' generators are seeded where its runtime is built
        images, labels = batch()
        found.append(loss_and_gradients(sibling, model, images.astype(np.float64), labels))
    return found


@pytest.mark.parametrize("words", [(), ("model.stochastic_depth=0.5", "model.dropout=0.5")])
def test_gradient_checkpointing_changes_no_gradient(sibling, words):
    (loss, gradients), (loss_with, gradients_with) = sibling.call(with_and_without, *words)
    assert loss_with == pytest.approx(loss, abs=1e-12)
    assert list(gradients_with) == list(gradients)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradients_with[name], gradient, rtol=0, atol=1e-12, err_msg=name)


def trained(sibling, folder, choice):
    """A training of a ViT of two blocks, of which the second's branches are dropped half of the time."""
    with mock.patch.dict(VITS, vit_tiny=(192, 2, 3)):
        return train(sibling, folder, "model.name=vit_tiny", "model.stochastic_depth=0.5", "hardware.precision=fp64",
                     "dataset.limit_train=110", "train.epochs=1", "schedule.warmup_epochs=0", choice)


def test_gradient_checkpointing_changes_no_training(sibling, tmp_path):
    found = []
    for choice in CHECKPOINTING:
        done = sibling.call(trained, str(tmp_path / choice), choice)
        assert done["error"] is None, done["error"]
        found.append(load_file(done["run"] / "best.safetensors"))
    assert found[0].keys() == found[1].keys()
    for name, tensor in found[0].items():
        np.testing.assert_allclose(found[1][name], tensor, rtol=0, atol=1e-9, err_msg=name)


def kept(sibling, choice):
    """Activations that wait for the backward pass, in tensors of the size of all tokens (n, T, D)."""
    _, _, model = start(sibling, "vit_tiny", "model.patch_size=4", choice)
    images, labels = batch()
    tokens = len(images) * (1 + (SIZE // 4) ** 2) * VITS["vit_tiny"][0]
    if sibling == "lightning":
        import torch
        from torch.nn import functional as F

        parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        saved = {}

        def keep(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in parameters:
                saved[storage.data_ptr()] = storage.nbytes() / 4
            return tensor
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            F.cross_entropy(model.train()(torch.from_numpy(images)), torch.from_numpy(labels))
        return sum(saved.values()) / tokens
    import tensorflow as tf

    losses = []

    @tf.function
    def gradients(images):
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            losses.append(tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)))
        return tape.gradient(losses[-1], [variable.value for variable in model.trainable_variables])
    graph = gradients.get_concrete_function(tf.constant(images.transpose(0, 2, 3, 1))).graph

    def needed_for(operations):
        found, open_ends = set(), list(operations)
        while open_ends:
            operation = open_ends.pop()
            if operation not in found:
                found.add(operation)
                open_ends += [tensor.op for tensor in operation.inputs]
        return found
    # The forward pass is what the loss needs; kept is what the rest of the gradients takes from it, but for weights.
    forward = needed_for([losses[-1].op])
    taken = {tensor.ref() for operation in needed_for(tensor.op for tensor in graph.outputs) - forward
             for tensor in operation.inputs if tensor.op in forward and tensor.op.type != "ReadVariableOp"
             and tensor.dtype == tf.float32}
    return sum(tensor.deref().shape.num_elements() for tensor in taken) / tokens


def test_gradient_checkpointing_keeps_what_lies_between_blocks_alone(sibling):
    without, with_it = (sibling.call(kept, choice) / VITS["vit_tiny"][1] for choice in CHECKPOINTING)
    assert without > 11  # queries, keys and values, 3; the first dense layer and its gelu, 8; and more
    assert with_it < {"lightning": 1.5, "keras": 2.5}[sibling.name]  # Keras keeps what lies between branches too
