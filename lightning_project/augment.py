"""Augmentation in PyTorch, as `shared.data.augment` has drawn it, on whatever device a batch is."""

import torch

from shared.config import AugmentConfig

Batch = dict[str, torch.Tensor]


class Augmentation:
    """Turns a batch of `shared.data.batches.Batches`, as tensors, into normalised images, (n, C, S, S) of `dtype`.

    In memory the result is contiguous as (n, S, S, C), which PyTorch calls channels_last.
    """

    def __init__(self, settings: AugmentConfig, mean: tuple[float, ...], std: tuple[float, ...], dtype: torch.dtype):
        self.dtype = dtype
        self.mean = torch.tensor(mean, dtype=dtype)
        self.std = torch.tensor(std, dtype=dtype)
        self.policy = build_policy(settings)

    def __call__(self, batch: Batch) -> torch.Tensor:
        images = batch["image"]  # (n, H, W, C), 0 to 255
        if "rows" in batch:
            images = resize(images.to(self.dtype), batch["rows"].to(self.dtype), batch["columns"].to(self.dtype))
        if "flip" in batch:  # before the images take four times the memory
            images = torch.where(batch["flip"][:, None, None, None], images.flip(2), images)
        images = images.to(self.dtype, copy=True)
        if "flip" in batch and self.policy:  # a batch that is to be augmented always has "flip"
            images = apply_policy(self.policy, images)
        # Whole rows (n, S, S * C) at a time, and in place, which is several times faster than channels and new memory.
        mean, std = (values.to(images.device).repeat(images.shape[2]) for values in (self.mean, self.std))
        images = images.flatten(2).div_(255).sub_(mean).div_(std).view(images.shape)
        if "partner" in batch:
            images = mix(images, batch["partner"], batch["box"], batch["opacity"].to(self.dtype))
        return images.permute(0, 3, 1, 2)


def resize(images: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Resample images (n, H, W, C) to (n, S, S, C), by matrices rows (n or 1, S, H) and columns (n or 1, S, W)."""
    n = len(images)
    images = torch.einsum("nsh,nhwc->nswc", rows.expand(n, -1, -1), images)
    return torch.einsum("ntw,nswc->nstc", columns.expand(n, -1, -1), images)


def mix(images: torch.Tensor, partner: torch.Tensor, box: torch.Tensor, opacity: torch.Tensor) -> torch.Tensor:
    """Mix each of images (n, S, S, C) with the one at its `partner`, (n,).

    Inside `box`, (n, 4), in pixels, the partner alone is seen. Outside it the image has weight `opacity`, (n,), and the
    partner the rest.
    """
    size = images.shape[1]
    place = torch.arange(size, device=images.device)
    top, left, bottom, right = box[:, :, None].unbind(1)  # (n, 1) each
    inside = ((place >= top) & (place < bottom))[:, :, None] & ((place >= left) & (place < right))[:, None, :]
    weight = torch.where(inside, 0, opacity[:, None, None])[..., None]  # (n, S, S, 1)
    return weight * images + (1 - weight) * images[partner.long()]


def build_policy(settings: AugmentConfig) -> torch.nn.Module | None:
    """torchvision's policy that the config names, for an image (C, S, S) uint8; None where it names none."""
    if settings.policy == "none":
        return None
    from torchvision.transforms import v2

    if settings.policy == "randaugment":  # torchvision's magnitude goes from 0 to 30
        return v2.RandAugment(num_ops=2, magnitude=round(settings.policy_magnitude * 30))
    if settings.policy == "augmix":  # torchvision's severity goes from 1 to 10
        return v2.AugMix(severity=max(1, round(settings.policy_magnitude * 10)))
    return v2.RandomErasing(p=0.5, scale=(0.02, max(0.02, settings.policy_magnitude)), ratio=(0.3, 3.3))


def apply_policy(policy: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Apply `policy` to images (n, S, S, C), 0 to 255, one by one, since torchvision draws once for each call."""
    eight_bit = images.round().clamp(0, 255).to(torch.uint8).permute(0, 3, 1, 2)
    return torch.stack([policy(image) for image in eight_bit]).permute(0, 2, 3, 1).to(images.dtype)
