"""Initial weights, and the neutral weight file in which weights travel between the siblings.

Neutral means: the names of a PyTorch `state_dict` (those of timm's and torchvision's models), PyTorch's layout
(convolution: out, in, height, width; dense: out, in), safetensors. BatchNorm's `num_batches_tracked` is left out: it
only matters with `momentum=None`, which nobody here uses.
"""

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialise
from scipy.special import ndtri

from shared.config import Config, to_yaml
from shared.errors import UserError
from shared.models import HEADS, family_of
from shared.pretrained import checkpoint_of, fitted
from shared.runs import write_whole
from shared.sampling import WEIGHTS, fingerprint, uniforms

Shapes = dict[str, tuple[int, ...]]
Weights = dict[str, np.ndarray]

FORMAT = "lightning-keras-template/1"


def initial_weights(shapes: Shapes, seed: int) -> Weights:
    """Float32 weights to start from; each depends on the seed, its own name and its shape, and on nothing else.

    Convolutions: normal, variance 2 / (out x height x width), as He et al. (arXiv:1502.01852, equation 14, the
    backward form, which torchvision's ResNet uses), where a depthwise one has one output for each input. Dense: uniform
    in +-1/sqrt(in), PyTorch's default. BatchNorm and LayerNorm: 1 and 0, running mean 0 and variance 1. Biases: 0.
    In a ViT, as in timm: dense layers, head and position embedding normal with deviation 0.02, class token 1e-6, kernel
    of the patches uniform in +-1/sqrt(in x height x width).
    """
    return {name: initial_tensor(name, tuple(shape), seed) for name, shape in shapes.items()}


def initial_tensor(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    if len(shape) == 1:
        return np.full(shape, float(name.endswith((".weight", ".running_var"))), np.float32)
    draws = uniforms(int(np.prod(shape)), seed, WEIGHTS, zlib.crc32(name.encode())).reshape(shape)
    deviation = normal_deviation(name, shape)
    if deviation is None:
        return ((2 * draws - 1) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
    # Half a step up, since the quantile of 0 is minus infinity.
    return (ndtri(draws + 2.0**-54) * deviation).astype(np.float32)


def normal_deviation(name: str, shape: tuple[int, ...]) -> float | None:
    """The standard deviation of a tensor that is drawn from a normal distribution; None for a uniform one."""
    if name in ("cls_token", "pos_embed"):
        return 1e-6 if name == "cls_token" else 0.02
    if len(shape) == 2:
        return 0.02 if ".attn." in name or ".mlp." in name or name.startswith("head.") else None
    assert len(shape) == 4, f"{name} has shape {shape}: no rule for it"
    if name.startswith("patch_embed."):
        return None
    outputs = 1 if ".conv_dw." in name else shape[0]
    return np.sqrt(2 / (outputs * shape[2] * shape[3]))


def decays(shape: tuple[int, ...], norm_and_bias: bool) -> bool:
    """Whether weight decay touches a parameter of this shape: kernels and matrices.

    Biases and what normalises do not decay unless `norm_and_bias`, nor do, as in timm, a ViT's class token and position
    embedding, which have three axes.
    """
    return norm_and_bias or len(shape) in (2, 4)


def starting_weights(config: Config, shapes: Shapes, folders: tuple[str, ...] = (),
                     classes: tuple[str, ...] = ()) -> tuple[Weights, str]:
    """The weights that a new run starts from, and a line that says which they are: `init_from`, a published checkpoint,
    else weights drawn from the seed. `folders` are the names of the class folders.

    A head for other classes than `classes` is drawn anew, also where they are as many; without `classes` it is kept.

    Raises:
        UserError: where `init_from` or the checkpoint does not fit the model.
    """
    head, words = HEADS[family_of(config.model.name)], []
    if config.init_from:
        source = path = weight_file(config.init_from)
        same = not classes or trained_on(path) in ((), classes)
        given = {name: tensor for name, tensor in read(path).items()
                 if name not in head or (same and tensor.shape == shapes[name])}
    elif checkpoint := checkpoint_of(config):
        source, path = checkpoint.source, checkpoint.weights
        try:
            given, words = fitted(read(path), shapes, config.model.name, folders)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise UserError(f"{path} does not fit model.name={config.model.name} ({type(error).__name__}: {error}); "
                            "use the checkpoint of that model") from None
    else:
        return initial_weights(shapes, config.seed), f"initial weights drawn with seed {config.seed}"
    if anew := [name for name in head if name not in given]:
        given |= initial_weights({name: shapes[name] for name in anew}, config.seed)
        words = [*words, f"{', '.join(anew)} drawn anew for {shapes[head[0]][0]} classes"]
    refuse_misfit(given, shapes, path)
    return given, "; ".join([f"weights from {source}", *words])


def weight_file(given: str) -> Path:
    """The neutral weight file that a run folder or a path names. Raises `UserError`."""
    path = Path(given).expanduser()
    if path.is_dir():
        path = path / "best.safetensors"
    if not path.is_file():
        raise UserError(f"{path} does not exist; name a run folder that has finished an epoch, or a .safetensors file")
    return path


def read(path: Path) -> Weights:
    """All tensors of a weight file. Raises `UserError` where it is damaged or of another format."""
    try:
        with safe_open(path, "np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no iterator of its own
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is not a readable safetensors file ({str(error).splitlines()[0]}); use another, or "
                        "train anew") from None


def read_metadata(path: Path) -> dict[str, str]:
    """What `save` wrote beside the tensors; empty for a file from elsewhere."""
    try:
        with safe_open(path, "np") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}); use another, or train anew") from None


def trained_on(path: Path) -> tuple[str, ...]:
    """The classes that the weights in `path` tell apart; empty for a file from elsewhere, which does not say."""
    metadata = read_metadata(path)
    return tuple(json.loads(metadata["classes"])) if metadata.get("format") == FORMAT else ()


def refuse_misfit(weights: Weights, shapes: Shapes, source: object) -> None:
    """Raise `UserError` naming the tensors where `weights` are not exactly those of the model."""
    missing = [name for name in shapes if name not in weights]
    extra = [name for name in weights if name not in shapes]
    wrong = [f"{name} is {tuple(weights[name].shape)}, expected {tuple(shape)}" for name, shape in shapes.items()
             if name in weights and tuple(weights[name].shape) != tuple(shape)]
    problems = ([f"missing {', '.join(missing[:3])}{' ...' if missing[3:] else ''}"] if missing else []) \
        + ([f"unexpected {', '.join(extra[:3])}{' ...' if extra[3:] else ''}"] if extra else []) + wrong[:3]
    if problems:
        raise UserError(f"{source} does not fit this model: {'; '.join(problems)}; check model.name, dataset.name, "
                        "dataset.image_size, model.stem and model.patch_size")


def write_tensors(path: Path, tensors: Weights, metadata: dict[str, str],
                  into: Callable[[Path, Callable[[Path], object]], None] = write_whole) -> None:
    """Write a safetensors file so that a kill or a full disk leaves the previous one whole."""
    # Through bytes, because safetensors' own writing makes files that only their owner can read.
    content = serialise({name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}, metadata)
    into(path, lambda file: file.write_bytes(content))


def save(path: Path, weights: Weights, config: Config, classes: tuple[str, ...]) -> None:
    """Write a neutral weight file, with the config and the classes it belongs to."""
    write_tensors(path, weights, {"format": FORMAT, "model": config.model.name, "classes": json.dumps(classes),
                                  "config": to_yaml(config)})


def weights_fingerprint(weights: Weights) -> str:
    """A hash of all tensors, by name."""
    names = sorted(weights)
    return fingerprint(np.array(names), *(weights[name] for name in names))
