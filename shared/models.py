"""The models as facts: what both siblings and the command line have to know about each, and what is published about it.

To add a model, add an entry to MODELS and a function to each sibling; docs/changing.md shows it.

python -m shared.models prints the table.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from shared.errors import UserError
from shared.machine.console import Table
from shared.machine.ending import report_errors

# Up to this size images get a ResNet's small stem and a ViT's small patches.
SMALL_IMAGES = 64  # pixels
PATCH, SMALL_PATCH = 16, 4  # pixels

# Keys of the config's section `model` that not every model honours.
OPTIONAL_SETTINGS = ("stem", "patch_size", "dropout", "stochastic_depth", "gradient_checkpointing")

# `model.name=timm:resnet18` and `model.name=keras:ResNet50` name a model of one framework's library.
LIBRARIES = {"timm": "lightning", "keras": "keras"}
LIBRARY_SETTINGS = {"timm": ("dropout", "stochastic_depth"), "keras": ("dropout", "stochastic_depth")}


@dataclass(frozen=True)
class Published:
    """What is published about a model. Sizes are in pixels."""

    timm: str                 # its name in timm, whose model has the same parameters
    tag: str                  # timm's tag of the checkpoint that model.pretrained=true takes
    parameters: int           # with a head for 1,000 classes
    multiply_adds: float      # of one image, in units of 1e9
    image_size: int           # that these are counted and the checkpoint was trained at
    top1: float               # of that checkpoint on ImageNet's validation images, per cent, see ACCURACY
    top1_size: int            # pixels that this was measured at

    @property
    def checkpoint(self) -> str:
        """Its repository on the Hugging Face hub."""
        return f"timm/{self.timm}.{self.tag}"


@dataclass(frozen=True)
class Library:
    """What only the library itself knows about one of its models; each is a function of the Config.

    `find_preprocessing` returns the preprocessing that the model expects, see `shared.weights.pretrained`, or None
    where it expects none. `read_checkpoint` returns where the weights that `model.pretrained` names come from, and
    these weights, which fit the model but for its head.
    """

    find_preprocessing: Callable[[Any], dict[str, Any] | None]
    read_checkpoint: Callable[[Any], tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class ModelEntry:
    """What has to be known about a model without building it.

    `builder` names the file and the function in each sibling: models/<builder>.py with build_<builder>(settings,
    channels, classes, image_size). `head` is the module that makes the logits; all others are the backbone, except for
    `more_heads`, which a distilled model has. `first_kernel` is the tensor that sees the images; it is empty where that
    is not known. `settings` are the OPTIONAL_SETTINGS that the model honours; a config that sets another one is
    refused. `framework` is empty for a model that both siblings have; another one's initial weights are drawn by its
    framework. `library` is None for a model of our own. Where `whitens`, the first kernel is computed from the training
    images, see `shared.weights.whitening`. `depthwise` says whether it has convolutions of one channel each.
    """

    builder: str
    head: str
    first_kernel: str
    settings: tuple[str, ...] = ()
    batch_norm: bool = True
    framework: str = ""
    published: Published | None = None
    more_heads: tuple[str, ...] = ()
    library: Library | None = None
    whitens: bool = False
    depthwise: bool = False

    @property
    def heads(self) -> tuple[str, ...]:
        return self.head, *self.more_heads

    @property
    def head_tensors(self) -> tuple[str, ...]:
        """The tensors whose shape depends on the number of classes. Not every head has a bias."""
        return tuple(f"{head}.{name}" for head in self.heads for name in ("weight", "bias"))

    def is_of_head(self, tensor: str) -> bool:
        """Whether a tensor of this name belongs to a head, not to the backbone."""
        return tensor.startswith(tuple(f"{head}." for head in self.heads))


def describe_resnet(*published: object) -> ModelEntry:
    return ModelEntry("resnet", "fc", "conv1.weight", ("stem", "dropout", "stochastic_depth"),
                      published=Published(*published))


def describe_efficientnet(*published: object) -> ModelEntry:
    return ModelEntry("efficientnet", "classifier", "conv_stem.weight", ("dropout", "stochastic_depth"),
                      published=Published(*published), depthwise=True)


def describe_vit(*published: object) -> ModelEntry:
    return ModelEntry("vit", "head", "patch_embed.proj.weight",
                      ("patch_size", "dropout", "stochastic_depth", "gradient_checkpointing"), batch_norm=False,
                      published=Published(*published))


ACCURACY = "https://github.com/huggingface/pytorch-image-models/blob/main/results/results-imagenet.csv"
AUGREG = "augreg_in21k_ft_in1k"
MODELS = {
    "resnet18": describe_resnet("resnet18", "a1_in1k", 11_689_512, 1.81, 224, 73.16, 288),
    "resnet34": describe_resnet("resnet34", "a1_in1k", 21_797_672, 3.66, 224, 77.92, 288),
    "resnet50": describe_resnet("resnet50", "a1_in1k", 25_557_032, 4.09, 224, 81.21, 288),
    "efficientnet_b0": describe_efficientnet("efficientnet_b0", "ra_in1k", 5_288_548, 0.39, 224, 77.69, 224),
    "efficientnet_b3": describe_efficientnet("efficientnet_b3", "ra2_in1k", 12_233_232, 1.59, 288, 82.24, 320),
    "vit_tiny": describe_vit("vit_tiny_patch16_224", AUGREG, 5_717_416, 1.25, 224, 75.45, 224),
    "vit_small": describe_vit("vit_small_patch16_224", AUGREG, 22_050_664, 4.60, 224, 81.38, 224),
    "vit_base": describe_vit("vit_base_patch16_224", "augreg2_in21k_ft_in1k", 86_567_656, 17.56, 224, 85.10, 224),
    "airbench": ModelEntry("airbench", "fc", "whiten.weight", whitens=True),
}


def require_entry_fits(name: str, entry: ModelEntry, shapes: Mapping[str, tuple[int, ...]], classes: int) -> None:
    """Raise `UserError` where the entry of model `name` names what the built model, of tensors `shapes`, has not."""
    if entry.first_kernel and entry.first_kernel not in shapes:
        raise UserError(f"model.name={name} has no {entry.first_kernel}, which its entry in shared/models.py calls its "
                        f"first kernel; name the tensor there that sees the images, its first ones are "
                        f"{', '.join(list(shapes)[:3])}")
    for head in entry.heads:
        weight = f"{head}.weight"
        if weight not in shapes:
            modules = list(dict.fromkeys(tensor.rpartition(".")[0] for tensor in shapes))
            raise UserError(f"model.name={name} has no {weight}, which its entry in shared/models.py calls its head; "
                            f"name the module there that makes the logits, its last ones are {', '.join(modules[-3:])}")
        if shapes[weight][0] != classes:
            raise UserError(f"{head} of model.name={name} gives {shapes[weight][0]} outputs, expected {classes}, one "
                            "for each class; build it for the number of `classes` that its function is given")


def has_depthwise(name: str) -> bool:
    """Whether the model `model.name` is known to have depthwise convolutions. Of a library's models it is not known."""
    return name in MODELS and MODELS[name].depthwise


def split_library_name(name: str) -> tuple[str, str] | None:
    """("timm", "resnet18") of "timm:resnet18"; None for a model of our own."""
    library, colon, own = name.partition(":")
    return (library, own) if colon and library in LIBRARIES else None


# ResNet v1.5, arXiv:1512.03385, table 1: blocks in each stage, and whether they are bottlenecks.
RESNETS = {"resnet18": ((2, 2, 2, 2), False), "resnet34": ((3, 4, 6, 3), False), "resnet50": ((3, 4, 6, 3), True)}

# ViT, arXiv:2010.11929, table 1, and the smaller ones of arXiv:2106.10270: width, depth and heads.
VITS = {"vit_tiny": (192, 12, 3), "vit_small": (384, 12, 6), "vit_base": (768, 12, 12)}

# EfficientNet, arXiv:1905.11946: factors of width and depth, and table 1 for the B0.
EFFICIENTNETS = {"efficientnet_b0": (1.0, 1.0), "efficientnet_b3": (1.2, 1.4)}

# airbench94, arXiv:2404.00498, listing 4 and its code: channels of the three groups, the share of its statistics that
# BatchNorm keeps at each step, and the factor of the logits.
AIRBENCH_WIDTHS = (64, 256, 256)
AIRBENCH_MOMENTUM = 0.6
AIRBENCH_SCALE = 1 / 9


def count_whitening_filters(channels: int) -> int:
    """Filters of airbench's first layer: each component of a patch of 2x2 pixels, and its opposite."""
    return 2 * 4 * channels


@dataclass(frozen=True)
class Stage:
    """Blocks of equal shape; the first has `stride`. `expansion` is the width inside a block over that of its input."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (Stage(1, 3, 1, 1, 16), Stage(2, 3, 2, 6, 24), Stage(2, 5, 2, 6, 40), Stage(3, 3, 2, 6, 80),
          Stage(3, 5, 1, 6, 112), Stage(4, 5, 2, 6, 192), Stage(1, 3, 1, 6, 320))


def scale_efficientnet(name: str) -> tuple[int, tuple[Stage, ...], int]:
    """Channels of the stem, the stages, and channels of the last convolution."""
    width, depth = EFFICIENTNETS[name]
    stages = tuple(Stage(math.ceil(stage.blocks * depth), stage.kernel, stage.stride, stage.expansion,
                         round_to_eights(stage.channels * width)) for stage in STAGES)
    return round_to_eights(32 * width), stages, round_to_eights(1280 * width)


def round_to_eights(channels: float) -> int:
    """The nearest multiple of eight that is not more than a tenth below `channels`."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


def spread_depth_rates(rate: float, blocks: int) -> list[float]:
    """The probability with which each block's branch is dropped: from 0 to `rate` (arXiv:1603.09382, section 3)."""
    return [rate * block / max(blocks - 1, 1) for block in range(blocks)]


def choose_stem(stem: str, image_size: int) -> str:
    """The stem of a ResNet, small or large; `stem` is `model.stem`."""
    if stem != "auto":
        return stem
    return "small" if image_size <= SMALL_IMAGES else "large"


def choose_patch(patch_size: int, image_size: int) -> int:
    """Pixels on a side of a ViT's patch; `patch_size` is `model.patch_size`.

    Raises:
        UserError: where the image cannot be cut into whole patches.
    """
    patch = patch_size or (SMALL_PATCH if image_size <= SMALL_IMAGES else PATCH)
    if image_size % patch:
        multiple = max(1, round(image_size / patch)) * patch
        raise UserError(f"images of {image_size} pixels are not made of whole patches of {patch}; set "
                        f"dataset.image_size to a multiple such as {multiple}, or model.patch_size")
    return patch


def tabulate_models() -> Table:
    table = Table(["model.name", "parameters", "multiply-adds", "at", "published top-1", "checkpoint on the hub"], [])
    for name, entry in MODELS.items():
        facts = entry.published
        table.rows.append([name, f"{facts.parameters:,}", f"{facts.multiply_adds:.2f} G", f"{facts.image_size} px",
                           f"{facts.top1:.2f} % at {facts.top1_size} px", facts.checkpoint]
                          if facts else [name, *["-"] * 5])
    return table


if __name__ == "__main__":
    report_errors(lambda: print(
        f"{tabulate_models().to_text(math.inf)}\naccuracy: {ACCURACY}\n"
        "Beside these, model.name=timm:NAME takes any model of timm in Lightning, and model.name=keras:NAME any of "
        "keras.applications in Keras."))
