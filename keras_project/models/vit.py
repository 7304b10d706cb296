"""Vision Transformer, after Dosovitskiy et al. (arXiv:2010.11929), with the names of timm's tensors.

It is written out because it is short, and because Keras has none. As in timm, LayerNorm comes before each branch, its
eps is 1e-6, and only the class token is classified.
"""

import keras
from keras import layers, ops

from keras_project.executor import Tensor, executor
from keras_project.models.layers import StochasticDepth, gelu, with_head
from shared.config import ModelConfig
from shared.models import VITS, choose_patch, spread_depth_rates

EPS = 1e-6


@keras.saving.register_keras_serializable("keras_project")
class Tokens(layers.Layer):
    """Puts the class token first and adds the position embedding: (n, T, D) to (n, 1 + T, D)."""

    def build(self, input_shape: tuple[int, ...]) -> None:
        _, tokens, width = input_shape
        self.cls_token = self.add_weight((1, 1, width), "zeros", name="cls_token")
        self.pos_embed = self.add_weight((1, 1 + tokens, width), "zeros", name="pos_embed")

    def call(self, inputs: Tensor) -> Tensor:
        first = ops.broadcast_to(self.cls_token, (ops.shape(inputs)[0], 1, inputs.shape[-1]))
        return ops.concatenate([first, inputs], axis=1) + self.pos_embed


@keras.saving.register_keras_serializable("keras_project")
class SelfAttention(layers.Layer):
    """Multi-head self-attention, section 3.1 of the paper: queries, keys and values (n, T, 3 D) to (n, T, D)."""

    def __init__(self, heads: int, **kwargs):
        super().__init__(**kwargs)
        self.heads = heads

    def call(self, inputs: Tensor) -> Tensor:
        tokens, width = inputs.shape[1], inputs.shape[2] // 3
        qkv = ops.reshape(inputs, (-1, tokens, 3, self.heads, width // self.heads))
        queries, keys, values = ops.unstack(qkv, 3, axis=2)  # (n, T, heads, D / heads) each
        # Scaled here, since Keras' own function would round the scale to float32.
        x = executor.attend(queries * (width // self.heads) ** -0.5, keys, values)
        return ops.reshape(x, (-1, tokens, width))

    def get_config(self) -> dict:
        return {**super().get_config(), "heads": self.heads}


@keras.saving.register_keras_serializable("keras_project")
class Recomputed(layers.Layer):
    """Layers one after the other, whose activations training does not keep but computes again in the backward pass.

    No layer in it may draw random numbers, since the second computation would draw others. Keras' own RematScope is no
    substitute: it keeps the tensors between layers, it cannot call a layer with `training` in a graph, and under mixed
    precision it does not cast the weights again.
    """

    def __init__(self, parts: list[layers.Layer], **kwargs):
        super().__init__(**kwargs)
        self.parts = parts

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        return executor.recompute(self.chain)(inputs) if training else self.chain(inputs)

    def chain(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x


def branch(x: keras.KerasTensor, parts: list[layers.Layer], recompute: bool, name: str) -> keras.KerasTensor:
    """`parts` one after the other: (n, T, D) to (n, T, D)."""
    y = x
    for part in parts:
        y = part(y)  # Called here even if recomputed, so that the variables have the same paths in both cases.
    return Recomputed(parts, name=name)(x) if recompute else y


def block(x: keras.KerasTensor, heads: int, drop: float, recompute: bool, name: str) -> keras.KerasTensor:
    """Attention among the tokens, then the MLP on each of them: (n, T, D) to (n, T, D)."""
    width = x.shape[-1]
    y = branch(x, [layers.LayerNormalization(epsilon=EPS, name=f"{name}.norm1"),
                   layers.Dense(3 * width, name=f"{name}.attn.qkv"), SelfAttention(heads, name=f"{name}.attn"),
                   layers.Dense(width, name=f"{name}.attn.proj")], recompute, f"{name}.branch1")
    x = layers.Add(name=f"{name}.add1")([x, StochasticDepth(drop, name=f"{name}.drop1")(y)])
    y = branch(x, [layers.LayerNormalization(epsilon=EPS, name=f"{name}.norm2"),
                   layers.Dense(4 * width, name=f"{name}.mlp.fc1"), layers.Activation(gelu, name=f"{name}.mlp.act"),
                   layers.Dense(width, name=f"{name}.mlp.fc2")], recompute, f"{name}.branch2")
    return layers.Add(name=f"{name}.add2")([x, StochasticDepth(drop, name=f"{name}.drop2")(y)])


def build_vit(settings: ModelConfig, channels: int, classes: int, image_size: int) -> keras.Model:
    """Images (n, S, S, C) to logits (n, K)."""
    width, depth, heads = VITS[settings.name]
    patch = choose_patch(settings.patch_size, image_size)
    inputs = keras.Input((image_size, image_size, channels), name="images")
    x = layers.Conv2D(width, patch, patch, name="patch_embed.proj")(inputs)
    x = Tokens(name="tokens")(layers.Reshape((-1, width), name="patches")(x))  # (n, T, D) -> (n, 1 + T, D)
    for number, drop in enumerate(spread_depth_rates(settings.stochastic_depth, depth)):
        x = block(x, heads, drop, settings.gradient_checkpointing, f"blocks.{number}")
    x = layers.LayerNormalization(epsilon=EPS, name="norm")(x)
    return with_head(inputs, x[:, 0], settings, classes, "head")
