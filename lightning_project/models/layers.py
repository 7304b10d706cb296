"""Layers that PyTorch lacks: stochastic depth, BatchNorm over the batches of all processes, safe convolutions."""

from typing import Any

import torch
from torch import distributed, nn
from torch.nn import functional as F


class Conv2d(nn.Conv2d):
    """nn.Conv2d, padded by half of its size, with a gradient that is right for images of a single pixel too.

    In bfloat16 on a CPU, torch 2.15.0 gives the part of a kernel that meets nothing but padding uninitialised memory
    for a gradient, where the stride is 2 or the kernel larger than 3x3. There the kernel's centre is taken alone.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[2:] != (1, 1) or (self.stride == (1, 1) and self.kernel_size <= (3, 3)):
            return super().forward(x)
        row, column = self.padding
        return F.conv2d(x, self.weight[:, :, row:row + 1, column:column + 1], self.bias, groups=self.groups)


class StochasticDepth(nn.Module):
    """Drops the branch of each image with probability `rate` in training, and scales what is left, so that its mean
    stays (arXiv:1603.09382). The draws are PyTorch's own: not those of the other sibling."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not (self.training and self.rate):
            return x
        kept = torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device) >= self.rate
        return x * (kept.to(x.dtype) / (1 - self.rate))


class SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes, whose gradient is summed alike."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        distributed.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return SumOverProcesses.forward(ctx, gradient)


class SyncBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d whose statistics in training are those of the global batch, (n, C, H, W), shared out equally.

    nn.SyncBatchNorm computes the same on GPUs and refuses CPUs. Half precision is computed in fp32, as there.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not (self.training and distributed.is_initialized()):
            return super().forward(x)
        count = x.numel() // x.shape[1] * distributed.get_world_size()
        y = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        mean = SumOverProcesses.apply(y.sum(dim=(0, 2, 3))) / count
        y = y - mean[:, None, None]
        variance = SumOverProcesses.apply(y.square().sum(dim=(0, 2, 3))) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (y * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def synchronise(model: nn.Module, on_gpu: bool) -> nn.Module:
    """`model` with BatchNorm synchronised over processes; names and values of its tensors stay."""
    if on_gpu:
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm2d  # nothing but the formula differs
    return model
