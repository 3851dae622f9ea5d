"""Of several masks of an image, which one a sentence means.

Cells know little of how large a thing is, and clicks are of cells. So what was drawn is looked at again, as
whole things: what each holds of the cells, where it lies and how large it is, by itself and *compared* with
its rivals, weighted by how much of the click falls on them. What a word of place or size asks of those
comparisons is linear ("bigger": more size than the rivals), which is why few sentences teach it. Ours; that
looking again is worth it is HARIS's idea (Zhang et al. 2024), the comparisons are those of the point
generator's judge.

What it learns it learns without the click: of two that are taught together one hears the other, and errs with
it. In use both have a say.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ppt.segmenter.layers import Attention, FeedForward, Wanted, places, rows

LINEAR = 10.0
"""Scale of what is asked of comparisons, which are small numbers."""
FAINT = 1e-4
"""Of the click, what falls on every thing."""
FAR = 1 / 3
"""No difference counts more, of places in halves of the map's sides, of sizes in the logarithm of a side: a
speck is not smaller than a small thing."""


class SecondLook(nn.Module):
    """joint: of CLIP's space; width: of the cells."""

    def __init__(self, joint: int, width: int) -> None:
        super().__init__()
        self.held = nn.Linear(width, width)
        self.geometry = nn.Sequential(nn.Linear(8, width), nn.GELU(), nn.Linear(width, width))
        self.kind = nn.Parameter(torch.randn(2, width) * 0.02)
        self.look, self.rest = Attention(width), FeedForward(width)
        self.score = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))
        self.wanted = Wanted(joint, 3)

    def forward(
        self,
        covered: Float[Tensor, "b k h w"],
        known: Bool[Tensor, "b k"],
        click: Float[Tensor, "b h w"] | None,
        cells: Float[Tensor, "b c h w"],
        asked: Float[Tensor, "b c"],
        alone: Float[Tensor, "b t e"],
        there: Bool[Tensor, "b t"],
    ) -> Float[Tensor, "b k"]:
        """Logits to be compared; -1e4 where there is no thing.

        covered: share of each cell in each thing. click: shares that add up to 1; without it all things are
        alike to it. asked: the query. alone: each word's vector in the joint space.
        """
        share = covered.flatten(2)
        area = share.sum(2, keepdim=True).clamp(min=0.25)
        where = rows(places(cells))
        middle = share @ where / area
        spread = (share @ where.square() / area - middle.square()).clamp(min=0).sqrt()
        own = torch.cat([middle, area.log() / 2], 2)
        lit = torch.zeros_like(area[..., 0])
        if click is not None:
            lit = (torch.einsum("bn,bkn->bk", click.flatten(1), share) + FAINT).log()
        lit = lit.masked_fill(~known, -1e4)
        beyond = FAR * torch.tanh((own - _of_rivals(own, lit)) / FAR)
        beyond = beyond * (known.sum(1) > 1)[:, None, None]
        things = self.held(share @ rows(cells) / area) + self.geometry(torch.cat([own, beyond, spread], 2))
        tokens = torch.cat([asked[:, None] + self.kind[0], things + self.kind[1]], 1)
        missing = torch.cat([torch.zeros_like(known[:, :1]), ~known], 1)
        found = self.score(self.rest(self.look(tokens, missing=missing)))[:, 1:, 0]
        compared = torch.einsum("bkc,bc->bk", beyond, self.wanted(alone, there))
        return (lit + found + LINEAR * compared).masked_fill(~known, -1e4)


def _of_rivals(own: Float[Tensor, "b k c"], lit: Float[Tensor, "b k"]) -> Float[Tensor, "b k c"]:
    """For each thing the mean of the others, by how lit they are."""
    itself = torch.eye(own.shape[1], dtype=torch.bool, device=own.device)
    share = lit[:, None].expand(-1, own.shape[1], -1).masked_fill(itself, -1e4).softmax(2)
    return share @ own
