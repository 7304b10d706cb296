"""The weights that training starts from, drawn by name and shape, the same for both siblings."""

import math
import zlib
from collections.abc import Collection

import numpy as np
from scipy.special import ndtri

from shared.datasets.sampling import WEIGHTS, draw_uniforms
from shared.errors import UserError
from shared.weights.file import Shapes, Weights


def draw_initial_weights(shapes: Shapes, seed: int, kept: Weights | None = None) -> Weights:
    """Weights to start from; each that is drawn depends on the seed, its own name and its shape, and on nothing else.

    Convolutions of any number of dimensions: normal, variance 2 / (out x kernel size), as He et al. (arXiv:1502.01852,
    equation 14, the backward form, which torchvision's ResNet uses), where a depthwise one has one output for each
    input. Dense layers: uniform in +-1/sqrt(in), PyTorch's default. BatchNorm and LayerNorm: 1 and 0, running mean 0
    and variance 1. Biases: 0. In a ViT, as in timm: dense layers, head and position embedding normal with deviation
    0.02, class token 1e-6, kernel of the patches uniform in +-1/sqrt(in x height x width).

    Args:
        shapes: of all tensors of the model, by neutral name.
        seed: `seed` of the config.
        kept: tensors that start from these values instead; see `find_kept`.

    Returns:
        float32 tensors; those in `kept` that are integers stay integers.

    Raises:
        UserError: for a tensor that is not in `kept` and for which there is no rule.
    """
    kept = kept or {}
    return {name: kept[name] if name in kept else draw_initial_tensor(name, tuple(shape), seed)
            for name, shape in shapes.items()}


def find_kept(built: Weights, untrained: Collection[str] = ()) -> Weights:
    """The tensors of a freshly built model that start as its code set them.

    These are all tensors that are not trained, those of one value, such as the 0.25 of a PReLU, the 1e-6 of a layer
    scale or a kernel that was set to zero, and those that no rule draws, such as the matrices of an LSTM.
    """
    return {name: tensor.astype(np.float32) if np.issubdtype(tensor.dtype, np.floating) else tensor
            for name, tensor in built.items() if name in untrained or not is_drawn(name, tensor)}


def is_drawn(name: str, tensor: np.ndarray) -> bool:
    """Whether a rule of `draw_initial_weights` draws a trained tensor of a freshly built model."""
    if name in ("cls_token", "pos_embed"):
        return True
    kind = name.rpartition(".")[2]
    has_rule = (kind == "weight" and tensor.ndim > 1) or (kind == "bias" and tensor.ndim == 1)
    # A single number may have been drawn at random.
    return has_rule and (tensor.size == 1 or not has_one_value(tensor))


def has_one_value(tensor: np.ndarray) -> bool:
    return tensor.size == 0 or bool((tensor == tensor.flat[0]).all())


def draw_initial_tensor(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    if len(shape) == 1:
        return np.full(shape, float(name.endswith((".weight", ".running_var"))), np.float32)
    draws = draw_uniforms(int(np.prod(shape)), seed, WEIGHTS, zlib.crc32(name.encode())).reshape(shape)
    deviation = choose_deviation(name, shape)
    if deviation is None:
        return ((2 * draws - 1) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
    # Half a step up, since the quantile of 0 is minus infinity.
    return (ndtri(draws + 2.0**-54) * deviation).astype(np.float32)


def choose_deviation(name: str, shape: tuple[int, ...]) -> float | None:
    """The standard deviation of a tensor that is drawn from a normal distribution; None for a uniform one."""
    if name in ("cls_token", "pos_embed"):
        return 1e-6 if name == "cls_token" else 0.02
    if len(shape) == 2:
        return 0.02 if ".attn." in name or ".mlp." in name or name.startswith("head.") else None
    if len(shape) < 3:
        raise UserError(f"{name} has shape {tuple(shape)}, for which there is no rule of how to start; add one to "
                        "choose_deviation in shared/weights/initial.py")
    if name.startswith("patch_embed."):
        return None
    outputs = 1 if ".conv_dw." in name else shape[0]
    return np.sqrt(2 / (outputs * math.prod(shape[2:])))
