"""Any model of timm, `model.name=timm:NAME`: timm builds it, draws its weights and reads its checkpoints.

Its tensors have timm's names in a weight file. https://huggingface.co/docs/timm
"""

import difflib
import sys
from functools import lru_cache
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_project.models.layers import SyncBatchNorm2d
from lightning_project.models.neutral import neutral_weights
from shared.config import Config, ModelConfig
from shared.data.definitions import find_definition
from shared.errors import UserError, is_out_of_memory, summarise_error
from shared.models import LIBRARY_SETTINGS, Library, ModelEntry
from shared.weights.file import Weights
from shared.weights.pretrained import find_local_checkpoint, is_pretrained

try:
    import timm
    from timm.layers import BatchNormAct2d, convert_sync_batchnorm
    from timm.models import PretrainedCfg
except ModuleNotFoundError as error:
    if error.name != "timm":
        raise
    raise UserError("model.name=timm:... needs timm, which is not installed here; install the extra timm: make setup "
                    "EXTRAS=lightning,dev,timm") from None

# Arguments of timm that not every model has, and our keys for them.
RATES = {"drop_rate": "model.dropout", "drop_path_rate": "model.stochastic_depth"}


@lru_cache
def describe_model(name: str) -> ModelEntry:
    """The entry of `model.name`. Raises `UserError` where timm has no such model, or one that is no classifier."""
    facts = find_facts(name)
    heads, first = ([part] if isinstance(part, str) else list(part or ())
                    for part in (facts.classifier, facts.first_conv))
    if not heads:
        raise UserError(f"model.name={name} is no classifier; choose another model of timm")
    return ModelEntry("library", heads[0], f"{first[0]}.weight" if first else "", LIBRARY_SETTINGS["timm"],
                      framework="lightning", more_heads=tuple(heads[1:]),
                      library=Library(find_preprocessing, read_checkpoint))


def find_facts(name: str) -> PretrainedCfg:
    """What timm knows about `model.name` without building it. Raises `UserError` where there is no such model."""
    own = name.removeprefix("timm:")
    architecture, _, tag = own.partition(".")
    if not timm.is_model(architecture):
        nearest = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        raise UserError(f"model.name={name}: timm {timm.__version__} has no model '{architecture}'; "
                        + (f"did you mean {' or '.join(nearest)}?" if nearest else "timm.list_models() names all"))
    tags = [found.partition(".")[2] for found in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise UserError(f"model.name={name}: timm {timm.__version__} has no weights '{tag}' of {architecture}; "
                        + (f"choose one of {', '.join(tags)}" if tags else f"use timm:{architecture}"))
    return timm.get_pretrained_cfg(own)


def build_library(settings: ModelConfig, channels: int, classes: int, image_size: int) -> nn.Module:
    """timm's model from images (n, C, S, S) to logits (n, K).

    Raises:
        UserError: where timm cannot build it for such images, or without what `settings` ask for.
    """
    name = settings.name
    rates = {"drop_rate": settings.dropout, "drop_path_rate": settings.stochastic_depth}
    try:
        model = create_model(name, channels, classes, image_size, **rates).to(torch.get_default_dtype()).eval()
        with torch.no_grad():  # an image that is too small is often noticed no earlier
            shape = tuple(model(torch.zeros(1, channels, image_size, image_size)).shape)
    except Exception as error:  # timm's models raise whatever the first layer that does not fit leads to
        if isinstance(error, UserError) or is_out_of_memory(error):
            raise
        raise UserError(f"model.name={name} does not take images of {image_size} pixels with {channels} channels "
                        f"({summarise_error(error)}); it is made for dataset.image_size="
                        f"{find_facts(name).input_size[-1]}") from None
    modules = dict(model.named_modules())
    if shape != (1, classes) or not all(head in modules for head in describe_model(name).heads):
        raise UserError(f"model.name={name} is no classifier; choose another model of timm")
    return model.train()


def create_model(name: str, channels: int, classes: int, image_size: int, **options: Any) -> nn.Module:
    """`timm.create_model`, where rates of 0 may be unknown to the model. Raises `UserError` where another one is."""
    # Some models have to be told the image size. All others take any, and do not know the argument.
    size = {"img_size": image_size} if find_facts(name).fixed_input_size else {}
    try:
        return timm.create_model(name.removeprefix("timm:"), in_chans=channels, num_classes=classes, **size, **options)
    except TypeError as error:
        unknown = next((rate for rate in RATES if rate in options and f"'{rate}'" in str(error)), None)
        if unknown is None:
            raise
        if value := options.pop(unknown):
            raise UserError(f"{RATES[unknown]}={value:g} is not for model.name={name}, which has none in timm; leave "
                            "it out") from None
        return create_model(name, channels, classes, image_size, **options)


def find_preprocessing(config: Config) -> dict[str, Any] | None:
    """The preprocessing that the checkpoint was trained with; None without one."""
    facts = find_facts(config.model.name)
    if not is_pretrained(config):
        return None
    if config.model.pretrained.lower() != "true":
        return find_local_checkpoint(config, facts.architecture).settings
    if not facts.has_weights:
        raise UserError(f"timm has no weights of model.name={config.model.name}; set model.pretrained=false, or name a "
                        "folder of your own")
    return {"mean": facts.mean, "std": facts.std, "interpolation": facts.interpolation, "crop": facts.crop_pct}


def read_checkpoint(config: Config) -> tuple[str, Weights]:
    """Source and weights of the checkpoint that `model.pretrained` names.

    timm fits them to the image size and to the channels, renames what has other names in the file, and keeps the head.

    Raises:
        UserError: where it is missing, cannot be fetched, or belongs to another model.
    """
    from huggingface_hub import constants, logging

    name, wanted = config.model.name, config.model.pretrained
    facts, definition = find_facts(name), find_definition(config.dataset.name, config.dataset.variant)
    if wanted.lower() == "true":
        source, classes, overlay = facts.hf_hub_id or facts.url, facts.num_classes, {}
        remedy = ("go online without HF_HUB_OFFLINE, name a mirror in HF_ENDPOINT, or a local copy with "
                  "model.pretrained=FOLDER")
        if not constants.HF_HUB_OFFLINE:
            print(f"asking {constants.ENDPOINT} for {source}", file=sys.stderr)
        logging.set_verbosity_error()  # of each of its retries, which take half a minute
    else:
        checkpoint = find_local_checkpoint(config, facts.architecture)
        saved = checkpoint.facts.get("pretrained_cfg", {})
        source, classes = checkpoint.source, checkpoint.facts.get("num_classes", facts.num_classes)
        overlay = {key: saved[key] for key in ("input_size", "label_offset") if key in saved}
        overlay |= {"file": str(checkpoint.weights), "custom_load": False, "num_classes": classes}
        remedy = "use the checkpoint of that model"
    try:
        model = create_model(name, definition.channels, classes, config.dataset.image_size or definition.image_size,
                             pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:  # the hub's network library's errors have no base of their own
        raise UserError(f"model.pretrained={wanted}: {source} cannot be loaded into model.name={name} "
                        f"({summarise_error(error)}); {remedy}") from None
    return source, neutral_weights(model)


class SyncBatchNormAct2d(BatchNormAct2d):
    """timm's BatchNorm with an activation, whose statistics in training are those of the global batch, on CPUs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not (self.training and distributed.is_initialized()):
            return super().forward(x)
        return self.act(self.drop(SyncBatchNorm2d.forward(self, x)))


def synchronise(model: nn.Module, on_gpu: bool) -> nn.Module:
    """Make BatchNorm use the statistics of all processes; the names and values of the model's tensors stay.

    Raises:
        UserError: where the model normalises over the batch in a way of which there is no such form.
    """
    kinds = {nn.BatchNorm2d: SyncBatchNorm2d, BatchNormAct2d: SyncBatchNormAct2d}
    for module in model.modules():
        if hasattr(module, "running_var"):
            known = isinstance(module, _BatchNorm) if on_gpu else type(module) in kinds and module.affine
            if not known:
                raise UserError(f"hardware.sync_batchnorm=true cannot synchronise timm's {type(module).__name__} over "
                                f"{'GPUs' if on_gpu else 'CPU processes'}; set hardware.sync_batchnorm=false, or "
                                "hardware.devices=1")
    if on_gpu:
        return convert_sync_batchnorm(model)
    for module in model.modules():
        if type(module) in kinds:
            module.__class__ = kinds[type(module)]  # only `forward` differs
    return model
