"""What PyTorch lacks: a convolution that is right in bfloat16 on a CPU, and BatchNorm over several CPU processes."""

from typing import Any

import torch
from torch import distributed, nn
from torch.nn import functional as F


class Conv2d(nn.Conv2d):
    """nn.Conv2d, padded by half of its size, whose gradient is right for images of a single pixel too.

    On a single pixel, all of the kernel but its centre meets nothing but padding. In bfloat16 on a CPU, torch 2.15.0
    returns uninitialised memory as the gradient of that part if the stride is 2 or the kernel is larger than 3x3. In
    this case only the kernel's centre is used, so that the gradient of the rest is zero.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[2:] != (1, 1) or (self.stride == (1, 1) and self.kernel_size <= (3, 3)):
            return super().forward(x)
        row, column = self.padding
        return F.conv2d(x, self.weight[:, :, row:row + 1, column:column + 1], self.bias, groups=self.groups)


class SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes, whose gradient is summed over them too.

    `torch.distributed.nn.functional.all_reduce` computes the same, but torch 2.15 calls it deprecated at each use, and
    what it recommends instead is private.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        distributed.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return SumOverProcesses.forward(ctx, gradient)


class SyncBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d that normalises with the statistics of the global batch: (n, C, H, W) to the same.

    Each process has an equal share of that batch. nn.SyncBatchNorm computes the same on GPUs but refuses CPUs. Like
    nn.SyncBatchNorm, this layer computes half precision in fp32.
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
    """Make BatchNorm use the statistics of all processes; the names and values of the model's tensors stay."""
    if on_gpu:
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm2d  # only `forward` differs
    return model
