"""EfficientNet, after Tan and Le (arXiv:1905.11946), with the names of timm's tensors.

It is written out, although timm has it, because timm's BatchNorm and activation are one class of its own, which
`synchronise` in layers.py would not know; this way only the tests need timm. As in the models that timm trained
itself, convolutions pad alike on all sides, not as TensorFlow does, and BatchNorm has momentum 0.1 and eps 1e-5.
"""

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from lightning_project.models.layers import Conv2d
from shared.config import ModelConfig
from shared.models import Stage, scale_efficientnet, spread_depth_rates


class SqueezeExcite(nn.Module):
    """Scales each channel by a factor that depends on all channels' means (arXiv:1709.01507): (n, C, H, W) to the same.
    """

    def __init__(self, channels: int, reduced: int):
        super().__init__()
        self.conv_reduce = Conv2d(channels, reduced, 1)
        self.conv_expand = Conv2d(reduced, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = x.mean(dim=(2, 3), keepdim=True)  # (n, C, 1, 1)
        scale = F.silu(self.conv_reduce(scale))
        return x * self.conv_expand(scale).sigmoid()


class DepthwiseSeparable(nn.Module):
    """Depthwise convolution, squeeze-and-excitation, 1x1: (n, in, H, W) to (n, out, H / stride, W / stride).

    The block of the first stage, which does not widen its input (MBConv1 in the paper).
    """

    def __init__(self, channels_in: int, stage: Stage, stride: int, drop: float):
        super().__init__()
        self.conv_dw = Conv2d(channels_in, channels_in, stage.kernel, stride, padding=stage.kernel // 2,
                              groups=channels_in, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.se = SqueezeExcite(channels_in, channels_in // 4)
        self.conv_pw = Conv2d(channels_in, stage.channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(stage.channels)
        self.has_shortcut = stride == 1 and channels_in == stage.channels
        self.drop = StochasticDepth(drop, "row")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x
        x = F.silu(self.bn1(self.conv_dw(x)))
        x = self.se(x)
        x = self.bn2(self.conv_pw(x))
        return self.drop(x) + shortcut if self.has_shortcut else x


class InvertedResidual(nn.Module):
    """1x1 that widens, depthwise convolution, squeeze-and-excitation, 1x1 that narrows: (n, in, H, W) to (n, out,
    H / stride, W / stride).

    The block of all other stages (MBConv6 in the paper).
    """

    def __init__(self, channels_in: int, stage: Stage, stride: int, drop: float):
        super().__init__()
        wide = channels_in * stage.expansion
        self.conv_pw = Conv2d(channels_in, wide, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(wide)
        self.conv_dw = Conv2d(wide, wide, stage.kernel, stride, padding=stage.kernel // 2, groups=wide, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.se = SqueezeExcite(wide, channels_in // 4)
        self.conv_pwl = Conv2d(wide, stage.channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(stage.channels)
        self.has_shortcut = stride == 1 and channels_in == stage.channels
        self.drop = StochasticDepth(drop, "row")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x
        x = F.silu(self.bn1(self.conv_pw(x)))
        x = F.silu(self.bn2(self.conv_dw(x)))
        x = self.se(x)
        x = self.bn3(self.conv_pwl(x))
        return self.drop(x) + shortcut if self.has_shortcut else x


def build_stage(channels_in: int, stage: Stage, rates: Iterator[float]) -> nn.Sequential:
    """The blocks of a stage, of which the first has its stride."""
    kind = InvertedResidual if stage.expansion > 1 else DepthwiseSeparable
    first = kind(channels_in, stage, stage.stride, next(rates))
    return nn.Sequential(first, *(kind(stage.channels, stage, 1, next(rates)) for _ in range(stage.blocks - 1)))


class EfficientNet(nn.Module):
    """Images (n, C, S, S) to logits (n, K)."""

    def __init__(self, settings: ModelConfig, channels: int, classes: int):
        super().__init__()
        width, stages, last = scale_efficientnet(settings.name)
        rates = iter(spread_depth_rates(settings.stochastic_depth, sum(stage.blocks for stage in stages)))
        self.conv_stem = Conv2d(channels, width, 3, 2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential()
        for stage in stages:
            self.blocks.append(build_stage(width, stage, rates))
            width = stage.channels
        self.conv_head = Conv2d(width, last, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(last)
        self.act2 = nn.SiLU()  # a module, so that explain.py finds its output
        self.dropout = nn.Dropout(settings.dropout)
        self.classifier = nn.Linear(last, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.silu(self.bn1(self.conv_stem(x)))
        x = self.blocks(x)
        x = self.act2(self.bn2(self.conv_head(x)))
        x = x.mean(dim=(2, 3))  # (n, w, s, s) -> (n, w)
        return self.classifier(self.dropout(x))


def build_efficientnet(settings: ModelConfig, channels: int, classes: int, image_size: int) -> EfficientNet:
    return EfficientNet(settings, channels, classes)
