"""ResNet for images, after He et al. (arXiv:1512.03385), with torchvision's names.

Convolutions have no bias; BatchNorm has momentum 0.1 and eps 1e-5; a block of stride 2 halves in its first 3x3.
"""

import torch
from torch import nn
from torch.nn import functional as F


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (n, in, H, W) to (n, out, H / stride, W / stride)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.downsample = nn.Sequential()
        if stride != 1 or channels_in != channels_out:
            self.downsample = nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False),
                                            nn.BatchNorm2d(channels_out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        return F.relu(x + shortcut)


class ResNet(nn.Module):
    """Images (n, C, S, S) to logits (n, K)."""

    def __init__(self, blocks: tuple[int, ...], channels: int, classes: int, stem: str):
        super().__init__()
        self.stem = stem
        size, stride = (3, 1) if stem == "small" else (7, 2)  # small as for CIFAR in section 4.2 of the paper
        self.conv1 = nn.Conv2d(channels, 64, size, stride, padding=size // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        width = 64
        for stage, count in enumerate(blocks):
            layers = []
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(BasicBlock(width, 64 * 2**stage, stride))
                width = 64 * 2**stage
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self.stages = len(blocks)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        if self.stem == "large":
            x = F.max_pool2d(x, 3, stride=2, padding=1)
        for stage in range(self.stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        return self.fc(x.mean(dim=(2, 3)))  # (n, 512, s, s) -> (n, 512) -> (n, K)


def resnet18(channels: int, classes: int, stem: str) -> ResNet:
    return ResNet((2, 2, 2, 2), channels, classes, stem)
