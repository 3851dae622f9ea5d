"""MagNet's mask grounding (Chng et al., CVPR 2024, section 3.1): words that were hidden are told from the
other words, from the image, and from where the mask lies. The head's code is not public; after the abstract
it is ours: a small transformer over the words, the map pooled to 7 x 7 cells and one token of the mask.
Hidden words are told by CLIP's own token embeddings, so that no vocabulary is learned.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ppt.segmenter.layers import Attention, FeedForward, rows
from ppt.segmenter.losses.contrast import pooled

HIDDEN = 0.15
"""Share of a sentence's words that are hidden, at least one."""
POOLED = 7


class Grounding(nn.Module):
    """words: width of the words given, width: of the cells, embedding: of CLIP's tokens."""

    def __init__(self, words: int, width: int, embedding: int, layers: int = 2) -> None:
        super().__init__()
        self.blank = nn.Parameter(torch.randn(embedding) * 0.02)
        self.words = nn.Linear(words, width)
        self.mask, self.place = nn.Linear(width, width), nn.Linear(4, width)
        self.kind = nn.Parameter(torch.randn(3, width) * 0.02)
        self.itself = nn.ModuleList([Attention(width) for _ in range(layers)])
        self.rest = nn.ModuleList([FeedForward(width) for _ in range(layers)])
        self.tell = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, embedding))

    def forward(
        self,
        words: Float[Tensor, "b t d"],
        there: Bool[Tensor, "b t"],
        cells: Float[Tensor, "b c h w"],
        covered: Float[Tensor, "b 1 h w"],
        hidden: Bool[Tensor, "b t"],
        tokens: Int[Tensor, "b t"],
        vocabulary: Float[Tensor, "v e"],
    ) -> Float[Tensor, " b"]:
        """words: of the sentence with `hidden` ones blank. tokens: the ids before. covered: the mask on the
        grid of the cells. Cross-entropy of the hidden words of each sentence, 0 where none is hidden.
        """
        image = rows(F.adaptive_avg_pool2d(cells, POOLED))
        mask = self.mask(pooled(cells, covered)) + self.place(box(covered))
        said = self.words(words)
        x = torch.cat([said + self.kind[0], image + self.kind[1], (mask + self.kind[2])[:, None]], 1)
        missing = F.pad(~there, (0, x.shape[1] - there.shape[1]))
        for itself, rest in zip(self.itself, self.rest, strict=True):
            x = rest(itself(x, missing=missing))
        told = self.tell(x[:, : words.shape[1]][hidden]).float() @ vocabulary.float().T
        wrong = F.cross_entropy(told, tokens[hidden], reduction="none")
        sentence = hidden.nonzero()[:, 0]
        total = torch.zeros(len(words), device=wrong.device).index_add(0, sentence, wrong)
        return total / hidden.sum(1).clamp(min=1)


def box(covered: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 4"]:
    """Centre, and twice the standard deviation, of where each mask lies: x, y, x, y in [0, 1] of the map."""
    high, wide = covered.shape[-2:]
    share = covered[:, 0] / covered[:, 0].sum((1, 2), keepdim=True).clamp(min=1e-3)
    x = (torch.arange(wide, device=share.device) + 0.5) / wide
    y = (torch.arange(high, device=share.device) + 0.5) / high
    on_x, on_y = share.sum(1), share.sum(2)
    middle_x, middle_y = on_x @ x, on_y @ y
    spread_x = (on_x @ x.square() - middle_x.square()).clamp(min=0).sqrt()
    spread_y = (on_y @ y.square() - middle_y.square()).clamp(min=0).sqrt()
    return torch.stack([middle_x, middle_y, 2 * spread_x, 2 * spread_y], -1)


def hide(wanted: Bool[Tensor, "b t"], generator: torch.Generator) -> Bool[Tensor, "b t"]:
    """Which words to hide of those `wanted`: HIDDEN of them at random, at least one of each sentence that has
    any.
    """
    drawn = torch.rand(wanted.shape, generator=generator).to(wanted.device).masked_fill(~wanted, 2)
    first = F.one_hot(drawn.argmin(1), wanted.shape[1]).bool()
    return ((drawn < HIDDEN) | first) & wanted
