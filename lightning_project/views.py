"""Test-time augmentation, `evaluate.tta`: the mean of a model's logits over several views of an image."""

import torch
from torch import nn
from torch.nn import functional as F

from shared.data.views import VIEWS, View


def average_views(model: nn.Module, images: torch.Tensor, tta: str) -> torch.Tensor:
    """The weighted mean of the logits of all views of images (n, C, S, S), (n, K); `tta` is `evaluate.tta`."""
    views = VIEWS[tta]
    if len(views) == 1:
        return model(images)
    return torch.stack([view.weight * model(show_view(images, view)) for view in views]).sum(dim=0)


def show_view(images: torch.Tensor, view: View) -> torch.Tensor:
    """A view of images (n, C, S, S), of the same shape."""
    if view.mirrored:
        images = images.flip(3)
    if view.shift:
        size, pad = images.shape[2], abs(view.shift)
        first = pad - view.shift
        images = F.pad(images, (pad, pad, pad, pad), mode="reflect")[:, :, first:first + size, first:first + size]
    return images


class Views(nn.Module):
    """`average_views` as a model, to be exported."""

    def __init__(self, model: nn.Module, tta: str):
        super().__init__()
        self.model, self.tta = model, tta

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return average_views(self.model, images, self.tta)
