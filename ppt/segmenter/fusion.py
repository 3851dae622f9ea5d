"""Cells and words look at each other, and what they found comes back as the input of a second look.

After HARIS (Zhang et al. 2024, arXiv 2405.10707), of which no code is public: from its abstract we know that
"human-like attention" feeds a signal of the multi-modal features back so that the network centres on the
object. How it comes back here is ours: as an addition to the input ("add"), or to the values alone that
attention reads ("value", as AbSViT has it: Shi et al., CVPR 2023). The sentence weighs it by a small network
whose last layer begins at zero, so that before training a second round changes nothing.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ppt.segmenter.layers import FeedForward, as_map, heads, rows, silent, waves

Feedback = Literal["add", "value"]


@dataclass(frozen=True)
class Fused:
    """The cells and words after the last round, and the cells after every round."""

    cells: Float[Tensor, "b c h w"]
    words: Float[Tensor, "b t c"]
    rounds: tuple[Float[Tensor, "b c h w"], ...]


class HumanLikeAttention(nn.Module):
    """`rounds` rounds, of the same weights, with feedback between them. words, sentence: of the text."""

    def __init__(self, words: int, sentence: int, width: int, rounds: int, feedback: Feedback) -> None:
        super().__init__()
        self.rounds, self.feedback = rounds, feedback
        self.words = nn.Linear(words, width)
        self.cells_read, self.words_read = _Look(width), _Look(width)
        if rounds > 1:
            self.gate_cells, self.gate_words = _gate(sentence, width), _gate(sentence, width)

    def forward(
        self,
        cells: Float[Tensor, "b c h w"],
        words: Float[Tensor, "b t d"],
        there: Bool[Tensor, "b t"],
        sentence: Float[Tensor, "b e"],
    ) -> Fused:
        grid = int(cells.shape[-2]), int(cells.shape[-1])
        where = waves(cells)
        first_cells, first_words = rows(cells), self.words(words)
        whole = sentence[:, None]
        more_cells = more_words = torch.zeros((), device=cells.device, dtype=cells.dtype)
        rounds: list[Tensor] = []
        for round in range(self.rounds):
            v, k = first_cells, first_words
            if self.feedback == "add":
                v, k = v + more_cells, k + more_words
                value_v, value_k = v, k
            else:
                value_v, value_k = v + more_cells, k + more_words
            seen = self.cells_read(v, k, value_k, missing=~there, where=where)
            read = self.words_read(k, v, value_v, keys_where=where)
            rounds.append(as_map(seen, grid))
            if round + 1 < self.rounds:
                more_cells, more_words = seen * self.gate_cells(whole), read * self.gate_words(whole)
        return Fused(rounds[-1], read, tuple(rounds))


class _Look(nn.Module):
    """One side reads the other: attention, then a feed-forward layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads(width), batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.rest = FeedForward(width)

    def forward(
        self,
        x: Float[Tensor, "b n c"],
        keys: Float[Tensor, "b m c"],
        values: Float[Tensor, "b m c"],
        missing: Tensor | None = None,
        where: Tensor | float = 0.0,
        keys_where: Tensor | float = 0.0,
    ) -> Float[Tensor, "b n c"]:
        found, _ = self.attention(
            x + where, keys + keys_where, values, key_padding_mask=missing, need_weights=False
        )
        return self.rest(self.norm(x + found))


def _gate(sentence: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(sentence, width // 2), nn.GELU(), silent(nn.Linear(width // 2, width)))
