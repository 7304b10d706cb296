"""EfficientNet, after Tan and Le (arXiv:1905.11946), with timm's names.

Written out, though timm has it: there BatchNorm and activation are one class of timm's own, which our BatchNorm over
several processes would not know, and so timm is needed by the tests only. As in timm's own weights, convolutions pad
alike on all sides, not as TensorFlow does, and BatchNorm has PyTorch's momentum 0.1 and eps 1e-5.
"""

import torch
from torch import nn
from torch.nn import functional as F

from lightning_project.models.layers import Conv2d, StochasticDepth
from shared.config import ModelConfig
from shared.models import Stage, scale_efficientnet, spread_depth_rates


class SqueezeExcite(nn.Module):
    """Scales each channel by what the whole image says of it (arXiv:1709.01507): (n, C, H, W) to the same."""

    def __init__(self, channels: int, reduced: int):
        super().__init__()
        self.conv_reduce = Conv2d(channels, reduced, 1)
        self.conv_expand = Conv2d(reduced, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = x.mean(dim=(2, 3), keepdim=True)  # (n, C, 1, 1)
        return x * self.conv_expand(F.silu(self.conv_reduce(scale))).sigmoid()


class Block(nn.Module):
    """Widen by 1x1, depthwise convolution, squeeze, narrow by 1x1: (n, in, H, W) to (n, out, H / stride, W / stride).

    Without expansion there is no first 1x1, and the last is called what timm calls it there.
    """

    def __init__(self, channels_in: int, stage: Stage, stride: int, drop: float):
        super().__init__()
        inside = channels_in * stage.expansion
        self.expands = stage.expansion > 1
        if self.expands:
            self.conv_pw = Conv2d(channels_in, inside, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(inside)
        self.conv_dw = Conv2d(inside, inside, stage.kernel, stride, stage.kernel // 2, groups=inside, bias=False)
        self.add_module("bn2" if self.expands else "bn1", nn.BatchNorm2d(inside))
        self.se = SqueezeExcite(inside, channels_in // 4)
        self.add_module("conv_pwl" if self.expands else "conv_pw", Conv2d(inside, stage.channels, 1, bias=False))
        self.add_module("bn3" if self.expands else "bn2", nn.BatchNorm2d(stage.channels))
        self.has_shortcut = stride == 1 and channels_in == stage.channels
        self.drop = StochasticDepth(drop)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x
        if self.expands:
            x = F.silu(self.bn1(self.conv_pw(x)))
            x = self.se(F.silu(self.bn2(self.conv_dw(x))))
            x = self.bn3(self.conv_pwl(x))
        else:
            x = self.se(F.silu(self.bn1(self.conv_dw(x))))
            x = self.bn2(self.conv_pw(x))
        return self.drop(x) + shortcut if self.has_shortcut else x


class EfficientNet(nn.Module):
    """Images (n, C, S, S) to logits (n, K)."""

    def __init__(self, settings: ModelConfig, channels: int, classes: int):
        super().__init__()
        width, stages, last = scale_efficientnet(settings.name)
        self.conv_stem = Conv2d(channels, width, 3, 2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        rates = iter(spread_depth_rates(settings.stochastic_depth, sum(stage.blocks for stage in stages)))
        rows = []
        for stage in stages:
            row = []
            for block in range(stage.blocks):
                row.append(Block(width, stage, stage.stride if block == 0 else 1, next(rates)))
                width = stage.channels
            rows.append(nn.Sequential(*row))
        self.blocks = nn.Sequential(*rows)
        self.conv_head = Conv2d(width, last, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(last)
        self.dropout = nn.Dropout(settings.dropout)
        self.classifier = nn.Linear(last, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.silu(self.bn1(self.conv_stem(x)))
        x = F.silu(self.bn2(self.conv_head(self.blocks(x))))
        return self.classifier(self.dropout(x.mean(dim=(2, 3))))  # (n, w, s, s) -> (n, w) -> (n, K)


def build_efficientnet(settings: ModelConfig, channels: int, classes: int, image_size: int) -> EfficientNet:
    return EfficientNet(settings, channels, classes)
