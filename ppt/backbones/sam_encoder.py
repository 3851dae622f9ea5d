"""The image encoder of the embedded SAM: a small ViT between convolutions, in place of `ImageEncoderViT`.

A ViT on patches of 8 pixels, trained for hours on two cores, still missed borders by two pixels; a network
that finds outlines by convolution gets there in minutes. So convolutions go down to cells of 16 pixels,
segment_anything's own ViT blocks relate all cells, and convolutions with skip connections go back up to 2
pixels (as in U-Net, Ronneberger et al. 2015). The finest map is packed into the cells that SAM's decoder
reads and upsamples.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from segment_anything.modeling.image_encoder import Block
from torch import Tensor, nn

CELL = 8
"""Pixels along a side of one feature."""


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(1, outputs), nn.GELU())


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _convolution(width, width), nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


class ConvViTEncoder(nn.Module):
    """Normalised images (b, 3, img_size, img_size) -> features (b, out_chans, img_size / 8, img_size / 8).

    widths: channels at 2, 4, 8 and 16 pixels a position. depth, num_heads, mlp_ratio: of the ViT at 16.
    """

    def __init__(
        self,
        img_size: int,
        widths: Sequence[int],
        depth: int,
        num_heads: int,
        mlp_ratio: int,
        out_chans: int,
    ) -> None:
        super().__init__()
        self.img_size = img_size
        halves, quarters, eighths, deep = widths
        self.down = nn.ModuleList(
            [
                nn.Sequential(_convolution(3, halves, 2), _Residual(halves)),
                nn.Sequential(_convolution(halves, quarters, 2), _Residual(quarters)),
                nn.Sequential(_convolution(quarters, eighths, 2), _Residual(eighths), _Residual(eighths)),
                nn.Sequential(_convolution(eighths, deep, 2), _Residual(deep)),
            ]
        )
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, img_size // 16, img_size // 16, deep))
        self.blocks = nn.ModuleList([Block(deep, num_heads, mlp_ratio) for _ in range(depth)])
        self.widen = nn.ModuleList(
            [nn.Conv2d(a, b, 1) for a, b in ((deep, eighths), (eighths, quarters), (quarters, halves))]
        )
        self.up = nn.ModuleList([_Residual(width) for width in (eighths, quarters, halves)])
        self.pack = nn.Conv2d(halves, out_chans, CELL // 2, CELL // 2)
        self.context = nn.Conv2d(eighths, out_chans, 1)
        self.norm = nn.GroupNorm(1, out_chans)

    def forward(self, images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b c g g"]:
        """Features of normalised images, float32 unless under autocast."""
        return self.pack_cells(*self.maps(images))

    def maps(self, images: Float[Tensor, "b 3 s s"]) -> tuple[Tensor, Tensor]:
        """The finest map (b, widths[0], s / 2, s / 2) and the one of 8-pixel positions (b, widths[2], s / 8,
        s / 8).
        """
        skips: list[Tensor] = []
        x = images
        for stage in self.down:
            x = stage(x)
            skips.append(x)
        cells = x.permute(0, 2, 3, 1) + self.pos_embed
        for block in self.blocks:
            cells = block(cells)
        x = cells.permute(0, 3, 1, 2)
        found: list[Tensor] = []
        for widen, refine, skip in zip(self.widen, self.up, reversed(skips[:-1]), strict=True):
            x = refine(skip + F.interpolate(widen(x), scale_factor=2))
            found.append(x)
        return x, found[0]

    def pack_cells(self, finest: Tensor, eighths: Tensor) -> Tensor:
        """`maps` -> features: what a cell's 16 finest positions hold, side by side, and its surroundings."""
        return self.norm(self.pack(finest) + self.context(eighths))
