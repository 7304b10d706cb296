"""Vision Transformer, after Dosovitskiy et al. (arXiv:2010.11929), with the names of timm's tensors.

It is written out because it is short. As in timm, LayerNorm comes before each branch, its eps is 1e-6, and only the
class token is classified.
"""

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from torchvision.ops import StochasticDepth

from shared.config import ModelConfig
from shared.models import VITS, choose_patch, spread_depth_rates

EPS = 1e-6


class SelfAttention(nn.Module):
    """Multi-head self-attention, section 3.1 of the paper: (n, T, D) to (n, T, D)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, tokens, width = x.shape
        qkv = self.qkv(x).reshape(n, tokens, 3, self.heads, width // self.heads)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4)  # (n, heads, T, D / heads) each
        x = F.scaled_dot_product_attention(queries, keys, values)
        return self.proj(x.transpose(1, 2).reshape(n, tokens, width))


class MLP(nn.Module):
    """Two dense layers for each token: (n, T, D) to (n, T, 4 D) to (n, T, D)."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention among the tokens, then the MLP on each of them: (n, T, D) to (n, T, D)."""

    def __init__(self, width: int, heads: int, drop: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, EPS)
        self.attn = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, EPS)
        self.mlp = MLP(width)
        self.drop = StochasticDepth(drop, "row")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.drop(self.attn(self.norm1(x)))
        return x + self.drop(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    """Images (n, C, S, S) to one token per patch (n, T, D), row by row."""

    def __init__(self, channels: int, width: int, patch: int):
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, patch)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """Images (n, C, S, S) to logits (n, K)."""

    def __init__(self, settings: ModelConfig, channels: int, classes: int, image_size: int):
        super().__init__()
        width, depth, heads = VITS[settings.name]
        patch = choose_patch(settings.patch_size, image_size)
        self.recompute = settings.gradient_checkpointing
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (image_size // patch) ** 2, width))
        self.patch_embed = PatchEmbed(channels, width, patch)
        self.blocks = nn.Sequential(*(Block(width, heads, drop)
                                      for drop in spread_depth_rates(settings.stochastic_depth, depth)))
        self.norm = nn.LayerNorm(width, EPS)
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed(x)
        cls_token = self.cls_token.expand(x.shape[0], -1, -1)  # len(x) would be a constant in an exported model
        x = torch.cat([cls_token, x], dim=1) + self.pos_embed  # (n, 1 + T, D)
        for block in self.blocks:
            # `checkpoint` restores the random state, so that stochastic depth drops the same branches when the block is
            # computed again.
            x = checkpoint(block, x, use_reentrant=False) if self.recompute and self.training else block(x)
        x = self.norm(x)[:, 0]  # the class token, (n, D)
        return self.head(self.dropout(x))


def build_vit(settings: ModelConfig, channels: int, classes: int, image_size: int) -> VisionTransformer:
    return VisionTransformer(settings, channels, classes, image_size)
