"""The zoo in numbers: how wide and deep each model is, for both siblings, and what is published about it.

python -m shared.models
"""

import math
from dataclasses import dataclass

from shared.config import ModelConfig
from shared.errors import UserError
from shared.tables import Table

# The tensors that depend on the number of classes, and the kernel that sees the images, by the first part of the
# model's name.
HEADS = {"resnet": ("fc.weight", "fc.bias"), "efficientnet": ("classifier.weight", "classifier.bias"),
         "vit": ("head.weight", "head.bias")}
FIRST_KERNELS = {"resnet": "conv1.weight", "efficientnet": "conv_stem.weight", "vit": "patch_embed.proj.weight"}

# Up to this size images get a ResNet's small stem and a ViT's small patches.
SMALL_IMAGES = 64  # pixels
PATCH, SMALL_PATCH = 16, 4  # pixels


@dataclass(frozen=True)
class Entry:
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


ACCURACY = "https://github.com/huggingface/pytorch-image-models/blob/main/results/results-imagenet.csv"
AUGREG = "augreg_in21k_ft_in1k"
ZOO = {
    "resnet18": Entry("resnet18", "a1_in1k", 11_689_512, 1.81, 224, 73.16, 288),
    "resnet34": Entry("resnet34", "a1_in1k", 21_797_672, 3.66, 224, 77.92, 288),
    "resnet50": Entry("resnet50", "a1_in1k", 25_557_032, 4.09, 224, 81.21, 288),
    "efficientnet_b0": Entry("efficientnet_b0", "ra_in1k", 5_288_548, 0.39, 224, 77.69, 224),
    "efficientnet_b3": Entry("efficientnet_b3", "ra2_in1k", 12_233_232, 1.59, 288, 82.24, 320),
    "vit_tiny": Entry("vit_tiny_patch16_224", AUGREG, 5_717_416, 1.25, 224, 75.45, 224),
    "vit_small": Entry("vit_small_patch16_224", AUGREG, 22_050_664, 4.60, 224, 81.38, 224),
    "vit_base": Entry("vit_base_patch16_224", "augreg2_in21k_ft_in1k", 86_567_656, 17.56, 224, 85.10, 224),
}


def family_of(name: str) -> str:
    """The longest key of `HEADS` that a model's name begins with."""
    return max((family for family in HEADS if name.startswith(family)), key=len)


def head_module(name: str) -> str:
    """What the last layer of a model is called; all others are its backbone."""
    return HEADS[family_of(name)][0].rpartition(".")[0]


# ResNet v1.5, arXiv:1512.03385, table 1: blocks in each stage, and whether they are bottlenecks.
RESNETS = {"resnet18": ((2, 2, 2, 2), False), "resnet34": ((3, 4, 6, 3), False), "resnet50": ((3, 4, 6, 3), True)}

# ViT, arXiv:2010.11929, table 1, and the smaller ones of arXiv:2106.10270: width, depth and heads.
VITS = {"vit_tiny": (192, 12, 3), "vit_small": (384, 12, 6), "vit_base": (768, 12, 12)}

# EfficientNet, arXiv:1905.11946: factors of width and depth, and table 1 for the B0.
EFFICIENTNETS = {"efficientnet_b0": (1.0, 1.0), "efficientnet_b3": (1.2, 1.4)}


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


def efficientnet_shape(name: str) -> tuple[int, tuple[Stage, ...], int]:
    """Channels of the stem, the stages, and channels of the last convolution."""
    width, depth = EFFICIENTNETS[name]
    stages = tuple(Stage(math.ceil(stage.blocks * depth), stage.kernel, stage.stride, stage.expansion,
                         in_eights(stage.channels * width)) for stage in STAGES)
    return in_eights(32 * width), stages, in_eights(1280 * width)


def in_eights(channels: float) -> int:
    """The nearest multiple of eight that is not more than a tenth below `channels`."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


def depth_rates(rate: float, blocks: int) -> list[float]:
    """The probability with which each block's branch is dropped: from 0 to `rate` (arXiv:1603.09382, section 3)."""
    return [rate * block / max(blocks - 1, 1) for block in range(blocks)]


def stem_of(settings: ModelConfig, image_size: int) -> str:
    """The stem of a ResNet, small or large."""
    if settings.stem != "auto":
        return settings.stem
    return "small" if image_size <= SMALL_IMAGES else "large"


def patch_of(settings: ModelConfig, image_size: int) -> int:
    """Pixels on a side of a ViT's patch. Raises `UserError` where the image is not made of whole ones."""
    patch = settings.patch_size or (SMALL_PATCH if image_size <= SMALL_IMAGES else PATCH)
    if image_size % patch:
        multiple = max(1, round(image_size / patch)) * patch
        raise UserError(f"images of {image_size} pixels are not made of whole patches of {patch}; set "
                        f"dataset.image_size to a multiple such as {multiple}, or model.patch_size")
    return patch


def zoo() -> Table:
    table = Table(["model.name", "parameters", "multiply-adds", "at", "published top-1", "checkpoint on the hub"], [])
    for name, entry in ZOO.items():
        table.rows.append([name, f"{entry.parameters:,}", f"{entry.multiply_adds:.2f} G", f"{entry.image_size} px",
                           f"{entry.top1:.2f} % at {entry.top1_size} px", entry.checkpoint])
    return table


if __name__ == "__main__":
    print(f"{zoo().text(math.inf)}\naccuracy: {ACCURACY}")
