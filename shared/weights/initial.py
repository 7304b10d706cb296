"""The initial weights of a model, drawn by name and shape, so that both siblings start from the same."""

import math
import zlib
from collections.abc import Collection

import numpy as np
from scipy.special import ndtri

from shared.data.sampling import WEIGHTS, draw_uniforms
from shared.errors import UserError
from shared.weights.file import Shapes, Weights


def draw_initial_weights(shapes: Shapes, seed: int, fixed: Weights | None = None) -> Weights:
    """The initial weights. Each tensor that is drawn depends on the seed, its name and its shape alone.

    Convolutions of any number of dimensions are normal with variance 2 / (out x kernel size), as in He et al.
    (arXiv:1502.01852, equation 14, the backward form, which torchvision's ResNet uses); out is 1 for a depthwise one.
    Dense layers are uniform in +-1/sqrt(in), PyTorch's default. The scale and shift of BatchNorm and LayerNorm are 1
    and 0, running mean and variance 0 and 1, biases 0. In a ViT, as in timm, dense layers, head and position embedding
    are normal with standard deviation 0.02, the class token with 1e-6, and the kernel of the patches is uniform in
    +-1/sqrt(in x height x width). The convolutions in the groups of airbench are uniform in the same bounds, but their
    first outputs begin as copies of the inputs, as many as there are (arXiv:2404.00498, section 3.2).

    Args:
        shapes: of all tensors of the model, by neutral name.
        seed: `seed` of the config.
        fixed: values of the tensors that are not drawn, by neutral name; see `find_fixed_tensors`.

    Returns:
        Tensors by neutral name, float32; integers in `fixed` stay integers.

    Raises:
        UserError: for a tensor that is not in `fixed` and for which there is no rule.
    """
    fixed = fixed or {}
    return {name: fixed[name] if name in fixed else draw_initial_tensor(name, tuple(shape), seed)
            for name, shape in shapes.items()}


def find_fixed_tensors(built: Weights, untrained: Collection[str] = ()) -> Weights:
    """The tensors of a freshly built model that keep the values which its code has given them.

    These are the `untrained` tensors; those with one value throughout, such as the 0.25 of a PReLU, the 1e-6 of a layer
    scale or a kernel of zeros; and those that no rule draws, such as the matrices of an LSTM.
    """
    return {name: tensor.astype(np.float32) if np.issubdtype(tensor.dtype, np.floating) else tensor
            for name, tensor in built.items() if name in untrained or not is_drawn(name, tensor)}


def is_drawn(name: str, tensor: np.ndarray) -> bool:
    """Whether `draw_initial_weights` draws this tensor, a trained one of a freshly built model."""
    if name in ("cls_token", "pos_embed"):
        return True
    kind = name.rpartition(".")[2]
    has_rule = (kind == "weight" and tensor.ndim > 1) or (kind == "bias" and tensor.ndim == 1)
    # A single number has one value throughout even if it was drawn at random.
    return has_rule and (tensor.size == 1 or not has_one_value(tensor))


def has_one_value(tensor: np.ndarray) -> bool:
    return tensor.size == 0 or bool((tensor == tensor.flat[0]).all())


def draw_initial_tensor(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Draw a tensor, float32, as `draw_initial_weights` says. Raises `UserError` where there is no rule for it."""
    if len(shape) == 1:
        return np.full(shape, float(name.endswith((".weight", ".running_var"))), np.float32)
    draws = draw_uniforms(int(np.prod(shape)), seed, WEIGHTS, zlib.crc32(name.encode())).reshape(shape)
    deviation = choose_deviation(name, shape)
    if deviation is None:
        drawn = ((2 * draws - 1) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        if is_near_identity(name):
            copied, middle = min(shape[:2]), tuple(length // 2 for length in shape[2:])
            drawn[:copied] = 0.0
            drawn[(np.arange(copied), np.arange(copied), *middle)] = 1.0
        return drawn
    # The draws are multiples of 2^-53 and can be 0, whose quantile is minus infinity; so half of that is added.
    return (ndtri(draws + 2.0**-54) * deviation).astype(np.float32)


def choose_deviation(name: str, shape: tuple[int, ...]) -> float | None:
    """The standard deviation of a tensor that is drawn from a normal distribution; None for a uniform distribution.

    Raises:
        UserError: where there is no rule for such a tensor.
    """
    if name in ("cls_token", "pos_embed"):
        return 1e-6 if name == "cls_token" else 0.02
    if len(shape) == 2:
        return 0.02 if ".attn." in name or ".mlp." in name or name.startswith("head.") else None
    if len(shape) < 3:
        raise UserError(f"{name} has shape {tuple(shape)}, for which there is no rule of how to start; add one to "
                        "choose_deviation in shared/weights/initial.py")
    if name.startswith("patch_embed.") or is_near_identity(name):
        return None
    outputs = 1 if ".conv_dw." in name else shape[0]
    return np.sqrt(2 / (outputs * math.prod(shape[2:])))


def is_near_identity(name: str) -> bool:
    return name.startswith("groups.")  # of airbench
