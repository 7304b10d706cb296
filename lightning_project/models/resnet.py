"""ResNet v1.5 for images, after He et al. (arXiv:1512.03385), with the names of torchvision's and timm's tensors.

It is written out because it is short, and because small images need another stem. Convolutions have no bias, and
BatchNorm has momentum 0.1 and eps 1e-5. Version 1.5 means that a bottleneck of stride 2 halves the image in its 3x3
convolution, where the paper does so in the first 1x1.
"""

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from lightning_project.models.layers import Conv2d
from shared.config import ModelConfig
from shared.models import RESNETS, choose_stem, spread_depth_rates


def projection(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    """The shortcut of a block: a strided 1x1 convolution where shapes differ, else nothing."""
    if stride == 1 and channels_in == channels_out:
        return nn.Sequential()
    return nn.Sequential(Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: (n, in, H, W) to (n, width, H / stride, W / stride)."""

    expansion = 1  # output channels / width

    def __init__(self, channels_in: int, width: int, stride: int, drop: float):
        super().__init__()
        self.conv1 = Conv2d(channels_in, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.drop = StochasticDepth(drop, "row")
        self.downsample = projection(channels_in, width, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        return F.relu(self.drop(x) + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut: (n, in, H, W) to (n, 4 width, H / stride, W / stride)."""

    expansion = 4  # output channels / width

    def __init__(self, channels_in: int, width: int, stride: int, drop: float):
        super().__init__()
        self.conv1 = Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.drop = StochasticDepth(drop, "row")
        self.downsample = projection(channels_in, 4 * width, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        return F.relu(self.drop(x) + shortcut)


def build_stage(block: type[BasicBlock] | type[Bottleneck], count: int, channels_in: int, width: int, stride: int,
                rates: Iterator[float]) -> tuple[nn.Sequential, int]:
    """`count` blocks, of which the first has `stride`, and the number of channels that leave them."""
    blocks = []
    for _ in range(count):
        blocks.append(block(channels_in, width, stride, next(rates)))
        channels_in, stride = block.expansion * width, 1
    return nn.Sequential(*blocks), channels_in


class ResNet(nn.Module):
    """Images (n, C, S, S) to logits (n, K)."""

    def __init__(self, settings: ModelConfig, channels: int, classes: int, stem: str):
        super().__init__()
        counts, bottleneck = RESNETS[settings.name]
        block = Bottleneck if bottleneck else BasicBlock
        rates = iter(spread_depth_rates(settings.stochastic_depth, sum(counts)))
        if stem == "small":  # as in section 4.2 of the paper, for CIFAR
            self.conv1 = Conv2d(channels, 64, 3, padding=1, bias=False)
        else:
            self.conv1 = Conv2d(channels, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.Identity() if stem == "small" else nn.MaxPool2d(3, 2, padding=1)
        self.layer1, features = build_stage(block, counts[0], 64, 64, 1, rates)
        self.layer2, features = build_stage(block, counts[1], features, 128, 2, rates)
        self.layer3, features = build_stage(block, counts[2], features, 256, 2, rates)
        self.layer4, features = build_stage(block, counts[3], features, 512, 2, rates)
        self.dropout = nn.Dropout(settings.dropout)
        self.fc = nn.Linear(features, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer1(x)
        x = self.layer2(x)
        x = self.layer3(x)
        x = self.layer4(x)
        x = x.mean(dim=(2, 3))  # (n, w, s, s) -> (n, w)
        return self.fc(self.dropout(x))


def build_resnet(settings: ModelConfig, channels: int, classes: int, image_size: int) -> ResNet:
    return ResNet(settings, channels, classes, choose_stem(settings.stem, image_size))
