"""Losses that PyTorch lacks, or has in another form, for targets that are shares of classes.

Both take logits (n, K) and targets (n, K) that sum to 1, and return the mean over images. `label_smoothing` moves that
share of each target evenly to all classes (arXiv:1512.00567, section 7), as nn.CrossEntropyLoss does; `weight` (K,)
multiplies the part of the loss that a class has.
"""

import torch
from torch import nn
from torch.nn import functional as F


class SoftTargetLoss(nn.Module):
    def __init__(self, weight: torch.Tensor | None = None, label_smoothing: float = 0.0):
        super().__init__()
        self.label_smoothing = label_smoothing
        self.register_buffer("weight", weight)

    def smooth(self, target: torch.Tensor) -> torch.Tensor:
        return (1 - self.label_smoothing) * target + self.label_smoothing / target.shape[1]


class BinaryCrossEntropy(SoftTargetLoss):
    """Each class is a yes-or-no question of its own; the mean over classes (timm's recipe A1, arXiv:2110.00476)."""

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(logits, self.smooth(target), self.weight)


class FocalLoss(SoftTargetLoss):
    """Cross-entropy times (1 - p)^gamma, where p is the class's probability (arXiv:1708.02002, equation 4)."""

    def __init__(self, gamma: float, weight: torch.Tensor | None = None, label_smoothing: float = 0.0):
        super().__init__(weight, label_smoothing)
        self.gamma = gamma

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        log_p = logits.log_softmax(dim=1)
        # Never 0, where a gamma below 1 has an infinite derivative.
        easiness = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny) ** self.gamma
        share = self.smooth(target) if self.weight is None else self.smooth(target) * self.weight
        return -(share * easiness * log_p).sum(dim=1).mean()
