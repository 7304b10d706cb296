"""The weights that training starts from, drawn by name and shape, the same for both siblings."""

import zlib
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from scipy.special import ndtri

from shared.datasets.sampling import WEIGHTS, draw_uniforms
from shared.errors import UserError
from shared.weights.file import Shapes, Weights


def draw_initial_weights(shapes: Shapes, seed: int, constants: Mapping[str, float] = MappingProxyType({})) -> Weights:
    """Float32 weights to start from; each depends on the seed, its own name and its shape, and on nothing else.

    Convolutions: normal, variance 2 / (out x height x width), as He et al. (arXiv:1502.01852, equation 14, the
    backward form, which torchvision's ResNet uses), where a depthwise one has one output for each input. Dense: uniform
    in +-1/sqrt(in), PyTorch's default. BatchNorm and LayerNorm: 1 and 0, running mean 0 and variance 1. Biases: 0.
    In a ViT, as in timm: dense layers, head and position embedding normal with deviation 0.02, class token 1e-6, kernel
    of the patches uniform in +-1/sqrt(in x height x width). A vector that a framework's layer starts from one value, as
    in `constants`, starts from that value: 0.25 in a PReLU, 1e-6 in a layer scale.
    """
    return {name: draw_initial_tensor(name, tuple(shape), seed, constants.get(name)) for name, shape in shapes.items()}


def find_constants(built: Weights) -> dict[str, float]:
    """The value of each vector of a freshly built model that holds one value only."""
    return {name: float(tensor[0]) for name, tensor in built.items()
            if tensor.ndim == 1 and tensor.size and (tensor == tensor[0]).all()}


def draw_initial_tensor(name: str, shape: tuple[int, ...], seed: int, constant: float | None = None) -> np.ndarray:
    if len(shape) == 1:
        usual = float(name.endswith((".weight", ".running_var")))
        return np.full(shape, usual if constant is None else constant, np.float32)
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
    if len(shape) != 4:
        raise UserError(f"{name} has shape {tuple(shape)}, for which there is no rule of how to start; add one to "
                        "choose_deviation in shared/weights/initial.py")
    if name.startswith("patch_embed."):
        return None
    outputs = 1 if ".conv_dw." in name else shape[0]
    return np.sqrt(2 / (outputs * shape[2] * shape[3]))
