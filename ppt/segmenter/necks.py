"""Three taps and the sentence -> one map. Each level is projected, spoken to, and brought to one grid.

film: every channel weighed by the sentence, the same at every place. This is what attention to the one token
of a sentence comes to, as ETRIS and DETRIS have it: with a single key every weight is 1.
rca (TALENT's rectified cost aggregator, as its code has it): the *cost*, a cell's likeness to the sentence,
weighs every channel at every place.
cam (MagNet, Chng et al., CVPR 2024, the vision side of its cross-modal alignment module): the level pooled to
grids of 1, 2, 3 and 6 reads the words, too; here by one attention for all of them.
concat: nothing is said.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ppt.segmenter.layers import Attention, as_map, convolution, places, resized, rows

Neck = Literal["film", "rca", "cam", "concat"]
POOLS = (1, 2, 3, 6)


@dataclass(frozen=True)
class Gathered:
    """One map; of each tap what it came to, on the same grid; and, of rca, the cost of the sentence there."""

    cells: Float[Tensor, "b c h w"]
    levels: tuple[Float[Tensor, "b c h w"], ...]
    costs: tuple[Float[Tensor, "b 1 h w"], ...] = ()


class Gather(nn.Module):
    """The neck. tapped: channels of the taps; words, sentence: of the text; width: its own."""

    def __init__(self, kind: Neck, tapped: tuple[int, ...], words: int, sentence: int, width: int) -> None:
        super().__init__()
        self.project = nn.ModuleList([convolution(channels, width) for channels in tapped])
        self.speak = nn.ModuleList([_speaker(kind, words, sentence, width) for _ in tapped])
        self.merge = nn.Conv2d(len(tapped) * width, width, 1)
        self.place = nn.Sequential(convolution(width + 2, width, 3), nn.Conv2d(width, width, 3, padding=1))

    def forward(
        self,
        taps: Sequence[Float[Tensor, "u _ _ _"]],
        of: Int[Tensor, " b"],
        words: Float[Tensor, "b t d"],
        there: Bool[Tensor, "b t"],
        sentence: Float[Tensor, "b e"],
    ) -> Gathered:
        """of: which of the taps' images each sentence is about. The grid is that of the second tap."""
        grid = int(taps[1].shape[-2]), int(taps[1].shape[-1])
        levels, costs = [], []
        for tap, project, speak in zip(taps, self.project, self.speak, strict=True):
            # Not [of]: its gradient adds up in whatever order the threads come.
            level = resized(project(tap), grid).index_select(0, of)
            said, cost = speak(level, words, there, sentence)
            levels.append(said)
            costs += [] if cost is None else [cost]
        merged = self.merge(torch.cat(levels, 1))
        return Gathered(
            merged + self.place(torch.cat([merged, places(merged)], 1)), tuple(levels), tuple(costs)
        )


def no_finer(taps: Sequence[Float[Tensor, "u _ _ _"]]) -> tuple[Float[Tensor, "u _ _ _"], ...]:
    """The taps on grids no finer than the second's, averaged: a ResNet's first has four times its cells."""
    high, wide = taps[1].shape[-2:]
    return tuple(resized(tap, (min(int(tap.shape[-2]), high), min(int(tap.shape[-1]), wide))) for tap in taps)


def _speaker(kind: Neck, words: int, sentence: int, width: int) -> nn.Module:
    match kind:
        case "film":
            return Film(sentence, width)
        case "rca":
            return Rectified(sentence, width)
        case "cam":
            return Pooled(words, width)
        case "concat":
            return Silent()


class Silent(nn.Module):
    """The level as it is."""

    def forward(
        self, cells: Float[Tensor, "b c h w"], words: Tensor, there: Tensor, sentence: Tensor
    ) -> tuple[Tensor, None]:
        return cells, None


class Film(nn.Module):
    """Every channel times what the sentence says of it."""

    def __init__(self, sentence: int, width: int) -> None:
        super().__init__()
        self.say = nn.Linear(sentence, width)

    def forward(
        self, cells: Float[Tensor, "b c h w"], words: Tensor, there: Tensor, sentence: Tensor
    ) -> tuple[Tensor, None]:
        return cells * self.say(sentence)[..., None, None], None


class Rectified(nn.Module):
    """Every channel times what the cost says of it at that place."""

    def __init__(self, sentence: int, width: int) -> None:
        super().__init__()
        self.say = nn.Linear(sentence, width)
        self.weigh = convolution(1, width)

    def forward(
        self, cells: Float[Tensor, "b c h w"], words: Tensor, there: Tensor, sentence: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The cost is <cell, ReLU(W sentence)> over the root of the width."""
        wanted = self.say(sentence).relu()
        cost = torch.einsum("bchw,bc->bhw", cells, wanted)[:, None] * cells.shape[1] ** -0.5
        return cells * self.weigh(cost), cost


class Pooled(nn.Module):
    """The level and four poolings of it, each having read the words."""

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.words = nn.Linear(words, width)
        self.read = Attention(width)
        self.narrow = nn.ModuleList([nn.Conv2d(width, width // 4, 1) for _ in POOLS])
        self.mix = convolution(2 * width, width)

    def forward(
        self, cells: Float[Tensor, "b c h w"], words: Tensor, there: Tensor, sentence: Tensor
    ) -> tuple[Tensor, None]:
        known, grid = self.words(words), (int(cells.shape[-2]), int(cells.shape[-1]))
        found = []
        for side, narrow in zip(POOLS, self.narrow, strict=True):
            pooled = F.adaptive_avg_pool2d(cells, side)
            spoken = as_map(self.read(rows(pooled), known, ~there), (side, side))
            found.append(F.interpolate(narrow(spoken), grid, mode="bilinear", align_corners=False))
        found.append(as_map(self.read(rows(cells), known, ~there), grid))
        return self.mix(torch.cat(found, 1)), None
