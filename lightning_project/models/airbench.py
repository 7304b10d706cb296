"""The network of airbench, which reached 94 % on CIFAR-10 faster than any before it (arXiv:2404.00498).

Its first layer whitens patches of 2x2 pixels, see `shared.weights.whitening`, and learns its bias alone. The
convolutions after it start as the identity as far as they can. BatchNorm forgets fast and learns its bias alone, at a
rate of its own, `optimizer.norm_bias_lr_factor`. Other than in the paper, the first bias learns to the end, and the
features are the largest values over whole images of any size.
"""

import torch
from torch import nn

from lightning_project.models.layers import Conv2d
from shared.config import ModelConfig
from shared.models import AIRBENCH_MOMENTUM, AIRBENCH_SCALE, AIRBENCH_WIDTHS, count_whitening_filters


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """BatchNorm whose scale stays 1."""
    norm = nn.BatchNorm2d(channels, momentum=1 - AIRBENCH_MOMENTUM)
    norm.weight.requires_grad_(False)
    return norm


class Group(nn.Module):
    """Two 3x3 convolutions, the first of which halves the image: (n, in, H, W) to (n, out, H // 2, W // 2).

    An image of one pixel stays as it is.
    """

    def __init__(self, channels_in: int, channels_out: int, side: int):
        super().__init__()
        self.conv1 = Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.pool = nn.MaxPool2d(2) if side > 1 else nn.Identity()
        self.conv2 = Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm1, self.norm2 = batch_norm(channels_out), batch_norm(channels_out)
        self.act1, self.act2 = nn.GELU(), nn.GELU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act1(self.norm1(self.pool(self.conv1(x))))
        return self.act2(self.norm2(self.conv2(x)))


class Airbench(nn.Module):
    """Images (n, C, S, S) to logits (n, K)."""

    def __init__(self, channels: int, classes: int, image_size: int):
        super().__init__()
        width, side = count_whitening_filters(channels), image_size - 1
        self.whiten = nn.Conv2d(channels, width, 2)
        self.whiten.weight.requires_grad_(False)
        self.act = nn.GELU()
        self.groups = nn.Sequential()
        for channels_out in AIRBENCH_WIDTHS:
            self.groups.append(Group(width, channels_out, side))
            width, side = channels_out, max(side // 2, 1)
        self.fc = nn.Linear(width, classes, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.groups(self.act(self.whiten(x)))
        x = x.amax(dim=(2, 3))  # (n, w, s, s) -> (n, w)
        return AIRBENCH_SCALE * self.fc(x)


def build_airbench(settings: ModelConfig, channels: int, classes: int, image_size: int) -> Airbench:
    return Airbench(channels, classes, image_size)
