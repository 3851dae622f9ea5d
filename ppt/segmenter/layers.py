"""What the drawers share: how maps are normalised, projected, resized and laid out, where a cell is, and what
words want.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

SHARP = 4.0
"""Scale of how much a word has to say."""


def silent(layer: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
    """The layer, saying nothing yet. Of a path only the last may be so, or none of it ever learns."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def convolution(inside: int, outside: int, size: int = 1, stride: int = 1) -> nn.Sequential:
    """Convolution, GroupNorm, ReLU: batch statistics mean nothing where batches are small."""
    return nn.Sequential(
        nn.Conv2d(inside, outside, size, stride, size // 2, bias=False),
        nn.GroupNorm(groups(outside), outside),
        nn.ReLU(inplace=True),
    )


def groups(channels: int) -> int:
    """Groups for a GroupNorm: of eight channels and more, 16 at most."""
    return next(g for g in (16, 8, 4, 2, 1) if (channels % g == 0 and channels // g >= 8) or g == 1)


def resized(cells: Float[Tensor, "b c h w"], grid: tuple[int, int]) -> Float[Tensor, "b c gh gw"]:
    """Bilinear, half-pixel centres; averaged where the new grid is coarser."""
    if cells.shape[-2:] == torch.Size(grid):
        return cells
    if cells.shape[-2] >= grid[0] and cells.shape[-1] >= grid[1]:
        return F.adaptive_avg_pool2d(cells, grid)
    return F.interpolate(cells, grid, mode="bilinear", align_corners=False)


def rows(cells: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n c"]:
    """A map as a sequence of its cells."""
    return cells.flatten(2).transpose(1, 2)


def as_map(sequence: Float[Tensor, "b n c"], grid: tuple[int, int]) -> Float[Tensor, "b c h w"]:
    """The inverse of `rows`."""
    return sequence.transpose(1, 2).unflatten(2, grid)


def places(like: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 2 h w"]:
    """x and y of every cell's centre in [-1, 1] of the map, as CoordConv has them (Liu et al. 2018)."""
    high, wide = like.shape[-2:]
    y = (torch.arange(high, device=like.device, dtype=like.dtype) + 0.5) / high * 2 - 1
    x = (torch.arange(wide, device=like.device, dtype=like.dtype) + 0.5) / wide * 2 - 1
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1])
    return grid.expand(len(like), -1, -1, -1)


def waves(like: Float[Tensor, "b c h w"]) -> Float[Tensor, "1 n c"]:
    """Sine and cosine of every cell's place, half the channels for x and half for y, as in DETR (Carion et
    al. 2020, appendix A.4). The channels must be a multiple of 4.
    """
    quarter = like.shape[1] // 4
    scale = 10_000 ** (-torch.arange(quarter, device=like.device, dtype=torch.float32) / quarter)
    turned = (places(like[:1])[0].float() + 1)[..., None] * torch.pi * 10 * scale
    both = torch.cat([turned.sin(), turned.cos()], -1)
    return torch.cat([both[0], both[1]], -1).flatten(0, 1)[None].to(like.dtype)


def heads(width: int) -> int:
    """Of attention, as many as have 16 channels and more; 8 at most."""
    return next(h for h in (8, 4, 2, 1) if width >= 16 * h or h == 1)


class Wanted(nn.Module):
    """What a sentence asks of `out` numbers, such as places: every word by itself, weighted by how much it
    has to say. Were the words pooled first, the one that counts would drown in the others. joint: of CLIP's
    space.
    """

    def __init__(self, joint: int, out: int, width: int = 64) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(joint, elementwise_affine=False)
        self.tell = nn.Sequential(nn.Linear(joint, width), nn.GELU(), nn.Linear(width, out + 1))

    def forward(self, alone: Float[Tensor, "b t e"], there: Bool[Tensor, "b t"]) -> Float[Tensor, "b _"]:
        """alone: each word's vector in the joint space; there: whether it is a word."""
        told = self.tell(self.norm(alone))
        share = (SHARP * told[..., -1]).masked_fill(~there, -torch.inf).softmax(1)
        return torch.einsum("bt,btk->bk", share, told[..., :-1])


class FeedForward(nn.Module):
    """Two layers beside a residual path, normalised before."""

    def __init__(self, width: int, times: int = 2) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.layers = nn.Sequential(
            nn.Linear(width, times * width), nn.GELU(), nn.Linear(times * width, width)
        )

    def forward(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        return x + self.layers(self.norm(x))


class Attention(nn.Module):
    """Multi-head attention beside a residual path, the queries normalised before; keys are given as they are.

    Where keys have places, those are added to the keys and not to what is read there.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads(width), batch_first=True)

    def forward(
        self,
        x: Float[Tensor, "b n c"],
        keys: Float[Tensor, "b m c"] | None = None,
        missing: Tensor | None = None,
        where: Tensor | float = 0.0,
        keys_where: Tensor | float = 0.0,
    ) -> Float[Tensor, "b n c"]:
        """keys: x itself by default. missing (b, m) bool: keys that are not there."""
        asked = self.norm(x)
        read = asked if keys is None else keys
        found, _ = self.attention(
            asked + where, read + keys_where, read, key_padding_mask=missing, need_weights=False
        )
        return x + found
