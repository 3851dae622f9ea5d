"""What is learned between CLIP's towers: after each stage, something added to what they hold.

`Bridger` (ETRIS, Xu et al., ICCV 2023, section 3.2) speaks both ways while both towers are under way. The
other two read finished words and change the image alone: `DenseAligner` (DETRIS, Huang et al., AAAI 2025) by
convolutions of several sizes and attention to the words; `CostAligner` (TALENT's adapter, as its code has it)
weighs every cell by what each word costs there. That one is given as many words as there are: TALENT's linear
layer over the places of words knows one length only, and lets padding speak.

All begin silent, so that an untrained segmenter sees what CLIP sees; a step of training is enough for every
layer before the last to learn, too.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ppt.segmenter.layers import as_map, convolution, resized, rows, silent

Adapter = Literal["none", "bridger", "dense", "cost"]
HEADS = 4


class Bridger(nn.Module):
    """One stage's bridge. channels: of the image tower there; words: of the text tower; width: its own."""

    def __init__(self, channels: int, words: int, width: int) -> None:
        super().__init__()
        self.narrow_image, self.narrow_text = nn.Linear(channels, width), nn.Linear(words, width)
        self.norm_image, self.norm_text = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_words = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.to_cells = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.widen_image, self.widen_text = (
            silent(nn.Linear(width, channels)),
            silent(nn.Linear(width, words)),
        )

    def forward(
        self,
        cells: Float[Tensor, "b c h w"],
        words: Float[Tensor, "b t d"],
        there: Bool[Tensor, "b t"],
        before: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """What to add to the cells and to the words, and what the next bridge is given as `before`."""
        grid = int(cells.shape[-2]), int(cells.shape[-1])
        a, b = self.narrow_image(rows(cells)), self.narrow_text(words)
        if before is not None:
            a, b = a + rows(resized(before[0], grid)), b + before[1]
        a, b = self.norm_image(a), self.norm_text(b)
        a = a * self.to_words(a, b, b, key_padding_mask=~there, need_weights=False)[0]
        b = b * self.to_cells(b, a, a, need_weights=False)[0]
        return as_map(self.widen_image(a), grid), self.widen_text(b), (as_map(a, grid), b)


class DenseAligner(nn.Module):
    """One stage's convolutions of three sizes, each reading those before it, and attention to the words."""

    def __init__(self, channels: int, words: int, width: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(channels, width, 1)
        self.branches = _Branches(width)
        self.words = nn.Linear(words, width)
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.widen = silent(nn.Conv2d(width, channels, 1))

    def forward(
        self, cells: Float[Tensor, "b c h w"], words: Float[Tensor, "b t d"], there: Bool[Tensor, "b t"]
    ) -> Float[Tensor, "b c h w"]:
        """What to add to the cells."""
        first = self.narrow(cells).relu()
        seen = self.branches(first)
        grid = int(cells.shape[-2]), int(cells.shape[-1])
        known = self.words(words)
        asked = self.norm(rows(seen))
        found, _ = self.attention(asked, known, known, key_padding_mask=~there, need_weights=False)
        return self.widen(seen + as_map(found, grid) + first)


class CostAligner(nn.Module):
    """One stage's convolutions of three sizes, and the cost of every word at every cell."""

    def __init__(self, channels: int, words: int, width: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(channels, width, 1)
        self.branches = _Branches(width)
        self.look, self.known, self.said = (
            nn.Conv2d(width, width, 1),
            nn.Linear(words, width),
            nn.Linear(words, width),
        )
        self.mix = nn.Conv2d(width, width, 1)
        self.widen = silent(nn.Conv2d(width, channels, 1))

    def forward(
        self, cells: Float[Tensor, "b c h w"], words: Float[Tensor, "b t d"], there: Bool[Tensor, "b t"]
    ) -> Float[Tensor, "b c h w"]:
        """What to add to the cells."""
        first = self.narrow(cells).relu()
        look = self.look(self.branches(first))
        has = there.to(words.dtype)
        cost = torch.einsum("bchw,btc->bthw", look, self.known(words)) * look.shape[1] ** -0.5
        share = (has / has.sum(1, keepdim=True))[..., None]
        gate = torch.einsum("bthw,btc->bchw", cost, self.said(words) * share)
        return self.widen(self.mix(gate * look) + first)


class _Branches(nn.Module):
    """1 x 1, 3 x 3 and 5 x 5 convolutions, half and twice a quarter of the width, beside a residual path."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half, quarter = width // 2, width // 4
        self.one = convolution(width, half)
        self.three = nn.Sequential(convolution(width + half, quarter), convolution(quarter, quarter, 3))
        self.five = nn.Sequential(
            convolution(width + half + quarter, quarter), convolution(quarter, quarter, 5)
        )

    def forward(self, cells: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        one = self.one(cells)
        three = self.three(torch.cat([cells, one], 1))
        five = self.five(torch.cat([cells, one, three], 1))
        return cells + torch.cat([one, three, five], 1)
