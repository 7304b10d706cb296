"""Gradient checkpointing keeps fewer activations and changes no number."""

from unittest import mock

import numpy as np
import pytest
from safetensors.numpy import load_file

from shared.models import VITS
from tests.conftest import train
from tests.siblings.test_zoo import SIZE, batch, loss_and_gradients, start

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


@pytest.mark.slow
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


@pytest.mark.slow
def test_gradient_checkpointing_keeps_what_lies_between_blocks_alone(sibling):
    without, with_it = (sibling.call(kept, choice) / VITS["vit_tiny"][1] for choice in CHECKPOINTING)
    assert without > 11  # queries, keys and values, 3; the first dense layer and its gelu, 8; and more
    assert with_it < {"lightning": 1.5, "keras": 2.5}[sibling.name]  # Keras keeps what lies between branches too
