"""Published checkpoints in timm's format, config.json beside model.safetensors: of a local folder or of the hub.

They come through the Hugging Face hub's own client and cache, which honour HF_HOME, HF_HUB_OFFLINE and HF_ENDPOINT.
Pickles are not read. Models of a framework's library have their checkpoints read by that library.
"""

import copy
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shared.config import Config, validate_config
from shared.data.augment import build_resampling
from shared.data.definition import INTERPOLATIONS
from shared.data.imagenet import read_synsets
from shared.errors import UserError
from shared.models import MODELS, PATCH, ModelEntry, split_library_name

CONFIG, WEIGHTS = "config.json", "model.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """`source` is what a reader is told. `settings` is the preprocessing that its model expects: mean and std of pixels
    scaled to 0..1, and maybe interpolation and crop. `facts` is what config.json holds."""

    source: str
    weights: Path
    settings: dict[str, Any]
    facts: dict[str, Any]


def find_checkpoint(config: Config) -> Checkpoint | None:
    """The checkpoint that `model.pretrained` names; None without one.

    Raises:
        UserError: where it is missing, cannot be fetched, or belongs to another model.
    """
    wanted = config.model.pretrained
    if not is_pretrained(config):
        return None
    entry = MODELS.get(config.model.name)
    published = entry and entry.published
    if published is None:
        raise UserError(f"no checkpoint is known for model.name={config.model.name}; set model.pretrained=false")
    if wanted.lower() == "true":
        source = published.checkpoint
        return read_facts(config, source, fetch_hub_file(source, CONFIG), fetch_hub_file(source, WEIGHTS),
                          published.timm)
    return find_local_checkpoint(config, published.timm)


def find_local_checkpoint(config: Config, architecture: str) -> Checkpoint:
    """The folder or .safetensors file that `model.pretrained` names, for the model that timm calls `architecture`.

    Raises:
        UserError: where it is missing, or belongs to another model.
    """
    wanted = config.model.pretrained
    path = Path(wanted).expanduser()
    weights = path if path.suffix == ".safetensors" else path / WEIGHTS
    facts = weights.with_name(CONFIG)
    for file in (weights, facts):
        if not file.is_file():
            raise UserError(f"model.pretrained={wanted}: {file} does not exist; name a folder with {CONFIG} and "
                            f"{WEIGHTS} as timm saves them, or use true or false")
    return read_facts(config, wanted, facts, weights, architecture)


def read_facts(config: Config, source: str, facts: Path, weights: Path, architecture: str) -> Checkpoint:
    """The checkpoint whose config.json is `facts`. Raises `UserError` where that is none, or of another model."""
    try:
        content = json.loads(facts.read_text(encoding="utf-8"))
        found, settings = content["architecture"], content.get("pretrained_cfg", content)
        mean, std = (tuple(map(float, settings[name])) for name in ("mean", "std"))
        settings = {"mean": mean, "std": std, "interpolation": settings["interpolation"],
                    "crop": float(settings["crop_pct"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{facts} is not a checkpoint's config of timm's ({type(error).__name__}: {error}); save it "
                        "again with timm.models.save_for_hf") from None
    if found != architecture:
        raise UserError(f"model.pretrained={config.model.pretrained} holds a {found}, and "
                        f"model.name={config.model.name} is timm's {architecture}; change one of them")
    return Checkpoint(source, weights, settings, content)


def is_pretrained(config: Config) -> bool:
    return config.model.pretrained.lower() != "false"


def fetch_hub_file(repository: str, name: str) -> Path:
    """A file of the hub, from the cache where it is there. Raises `UserError` where it cannot be had."""
    try:
        from huggingface_hub import constants, hf_hub_download, logging

        if not constants.HF_HUB_OFFLINE:
            print(f"asking {constants.ENDPOINT} for {repository}/{name}", file=sys.stderr)
        logging.set_verbosity_error()  # of each of its retries, which take half a minute
        return Path(hf_hub_download(repository, name))
    except Exception as error:  # its network library's errors have no base of their own, and a bad HF_ENDPOINT any
        raise UserError(f"model.pretrained=true: {repository} is not in the hub's cache and cannot be fetched "
                        f"({type(error).__name__}); go online without HF_HUB_OFFLINE, name a mirror in HF_ENDPOINT, or "
                        "a local copy with model.pretrained=FOLDER") from None


def apply_checkpoint_preprocessing(config: Config) -> Config:
    """`config` with what a checkpoint asks for: its mean, standard deviation, interpolation, crop, stem and patches.

    They become keys of the config, so that the run folder says them and evaluation needs no checkpoint. Of a library's
    model nothing is known here; see `apply_library_preprocessing`.
    """
    if split_library_name(config.model.name) or is_kept(config):
        return config
    checkpoint = find_checkpoint(config)
    if checkpoint is None:
        return config
    if config.model.stem == "small" or config.model.patch_size not in (0, PATCH):
        raise UserError("published checkpoints have the large stem and patches of 16 pixels; leave model.stem and "
                        "model.patch_size out, or set model.pretrained=false")
    config = copy.deepcopy(config)
    if "stem" in MODELS[config.model.name].settings:
        config.model.stem = "large"
    if "patch_size" in MODELS[config.model.name].settings:
        config.model.patch_size = PATCH
    return set_preprocessing(config, checkpoint.settings, checkpoint.source)


def apply_library_preprocessing(config: Config, entry: ModelEntry) -> Config:
    """`config` with the preprocessing that a library's model expects; for a model of our own as it is.

    To be called when the framework is imported, since only the library knows it.
    """
    if entry.library is None or is_kept(config):
        return config
    settings = entry.library.find_preprocessing(config)
    return set_preprocessing(config, settings, f"model.name={config.model.name}") if settings else config


def is_kept(config: Config) -> bool:
    """Whether the config is that of a run folder, which has the preprocessing in it; the checkpoint may be gone."""
    return config.resume not in ("none", "auto") and bool(config.dataset.mean)


def set_preprocessing(config: Config, settings: dict[str, Any], source: str) -> Config:
    """`config` with the preprocessing `settings` of a `Checkpoint`. Raises `UserError` where it is not possible here.
    """
    config = copy.deepcopy(config)
    dataset = config.dataset
    dataset.mean, dataset.std = list(settings["mean"]), list(settings["std"])
    dataset.center_crop = min(settings.get("crop", dataset.center_crop), 1.0)
    dataset.interpolation = settings.get("interpolation", dataset.interpolation)
    if dataset.interpolation not in INTERPOLATIONS:
        raise UserError(f"{source} wants {dataset.interpolation} interpolation; "
                        f"{' and '.join(INTERPOLATIONS)} are known")
    try:
        validate_config(config)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    return config


def adapt_checkpoint(weights: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]], entry: ModelEntry,
                     folders: tuple[str, ...]) -> tuple[dict[str, np.ndarray], list[str]]:
    """A checkpoint's tensors as the model needs them, without a head that does not fit, and what was done to them.

    `folders` are the names of the class folders: where they are ImageNet's, rows of its head are taken.
    """
    weights = {name: tensor.astype(np.float32) if tensor.dtype.kind == "f" else tensor
               for name, tensor in weights.items() if not name.endswith("num_batches_tracked")}
    done, head, first = [], [name for name in entry.head_tensors if name in shapes], entry.first_kernel
    rows, known = shapes[head[0]][0], read_synsets()
    given = {len(weights[name]) for name in head if name in weights}
    if given == {len(known)} and folders and set(folders) <= known.keys() and weights.keys() >= set(head):
        places = [list(known).index(name) for name in folders]
        weights |= {name: weights[name][places] for name in head}
        done.append(f"head of ImageNet's {rows:,} classes by name")
    elif given != {rows} or (folders and rows == len(known)):
        weights = {name: tensor for name, tensor in weights.items() if name not in head}
    if first in weights and weights[first].shape[1] == 3 and shapes[first][1] == 1:
        weights[first] = weights[first].sum(axis=1, keepdims=True)  # as of an image of three equal channels
        done.append("first kernel summed over colours")
    place = weights.get("pos_embed")
    if place is not None and place.shape != shapes["pos_embed"]:
        weights["pos_embed"] = resize_position_embedding(place, shapes["pos_embed"][1] - 1)
        done.append(f"position embedding scaled from {place.shape[1] - 1} to {shapes['pos_embed'][1] - 1} patches")
    return weights, done


def resize_position_embedding(place: np.ndarray, patches: int) -> np.ndarray:
    """A position embedding (1, 1 + T, D) for another square number of patches, (1, 1 + patches, D)."""
    old, new = round((place.shape[1] - 1) ** 0.5), round(patches**0.5)
    grid = place[0, 1:].reshape(old, old, -1)
    matrix = build_resampling(np.zeros(1), np.array([old]), old, new, "bicubic")[0]
    grid = np.einsum("yh,xw,hwd->yxd", matrix, matrix, grid, optimize=True)
    return np.concatenate([place[:, :1], grid.reshape(1, patches, -1)], axis=1).astype(np.float32)
