"""ResNet v1.5 for images, after He et al. (arXiv:1512.03385), with torchvision's and timm's names.

Written out, because it is short and because of the stem for small images. Convolutions have no bias; BatchNorm has
momentum 0.1 and eps 1e-5; a block of stride 2 halves in its first 3x3, which is what 1.5 stands for.
"""

import torch
from torch import nn
from torch.nn import functional as F

from lightning_project.models.layers import Conv2d, StochasticDepth
from shared.config import ModelConfig
from shared.models import RESNETS, choose_stem, spread_depth_rates


class Block(nn.Module):
    """A branch of convolutions and a shortcut: (n, in, H, W) to (n, out, H / stride, W / stride).

    The branch is two 3x3 or, in a bottleneck, 1x1, 3x3 and 1x1 with a quarter of the channels inside.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int, bottleneck: bool, drop: float):
        super().__init__()
        inside = channels_out // 4 if bottleneck else channels_out
        shapes = [(channels_in, inside, 1, 1), (inside, inside, 3, stride), (inside, channels_out, 1, 1)] \
            if bottleneck else [(channels_in, inside, 3, stride), (inside, inside, 3, 1)]
        for number, (wide_in, wide_out, size, step) in enumerate(shapes, 1):
            self.add_module(f"conv{number}", Conv2d(wide_in, wide_out, size, step, size // 2, bias=False))
            self.add_module(f"bn{number}", nn.BatchNorm2d(wide_out))
        self.convolutions = len(shapes)
        self.drop = StochasticDepth(drop)
        self.downsample = nn.Sequential()
        if stride != 1 or channels_in != channels_out:
            self.downsample = nn.Sequential(Conv2d(channels_in, channels_out, 1, stride, bias=False),
                                            nn.BatchNorm2d(channels_out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = self.downsample(x)
        for number in range(1, self.convolutions + 1):
            x = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(x))
            if number < self.convolutions:
                x = F.relu(x)
        return F.relu(self.drop(x) + shortcut)


class ResNet(nn.Module):
    """Images (n, C, S, S) to logits (n, K)."""

    def __init__(self, settings: ModelConfig, channels: int, classes: int, stem: str):
        super().__init__()
        blocks, bottleneck = RESNETS[settings.name]
        self.stem = stem
        size, stride = (3, 1) if stem == "small" else (7, 2)  # small as for CIFAR in section 4.2 of the paper
        self.conv1 = Conv2d(channels, 64, size, stride, padding=size // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        width, rates = 64, iter(spread_depth_rates(settings.stochastic_depth, sum(blocks)))
        for stage, count in enumerate(blocks):
            layers = []
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                width_out = 64 * 2**stage * (4 if bottleneck else 1)
                layers.append(Block(width, width_out, stride, bottleneck, next(rates)))
                width = width_out
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self.stages = len(blocks)
        self.dropout = nn.Dropout(settings.dropout)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        if self.stem == "large":
            x = F.max_pool2d(x, 3, stride=2, padding=1)
        for stage in range(self.stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        return self.fc(self.dropout(x.mean(dim=(2, 3))))  # (n, w, s, s) -> (n, w) -> (n, K)


def build_resnet(settings: ModelConfig, channels: int, classes: int, image_size: int) -> ResNet:
    return ResNet(settings, channels, classes, choose_stem(settings.stem, image_size))
