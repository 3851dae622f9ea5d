"""Which pixels belong together: TALENT's context-aware pairwise consistency (arXiv 2604.00609).

released: as its code has it, for comparison. A softmax over the cells is matched to a target that holds only
where a softmax of products exceeds 0.7: one or two cells an image. It stays near 1 and teaches next to
nothing.
corrected: cells inside the mask should look alike, and unlike cells outside. Cosines come from a projection
of their own without a ReLU: of vectors that are nowhere negative the cosine is not either, and cells that
should be apart could not be.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

SAMPLED = 128
"""Cells inside, and as many outside, of each image that are compared."""
INSIDE, OUTSIDE = 0.7, 0.3
"""Share of a cell that the mask covers, from which it is inside, and up to which outside."""
MARGIN, SHARP = 0.3, 0.07
"""Cosine at which two cells are neither alike nor apart, and the temperature."""


class Pairwise(nn.Module):
    """The corrected form, over the levels of the neck."""

    def __init__(self, levels: int, width: int, narrow: int = 64) -> None:
        super().__init__()
        self.project = nn.ModuleList([nn.Conv2d(width, narrow, 1) for _ in range(levels)])

    def forward(
        self,
        levels: tuple[Float[Tensor, "b c h w"], ...],
        covered: Float[Tensor, "b 1 h w"],
        there: Float[Tensor, "b 1 h w"],
        generator: torch.Generator,
    ) -> Float[Tensor, " b"]:
        """covered: share of each cell in the mask. 0 for an image with nothing inside or nothing outside."""
        losses = []
        inside, outside = drawn(covered, there, generator)
        for level, project in zip(levels, self.project, strict=True):
            x = F.normalize(project(level).float().flatten(2).transpose(1, 2), dim=-1)
            losses.append(torch.stack([_apart(x[i], inside[i], outside[i]) for i in range(len(x))]))
        return torch.stack(losses).mean(0)


def _apart(x: Float[Tensor, "n c"], inside: Tensor, outside: Tensor) -> Float[Tensor, ""]:
    if len(inside) < 2 or not len(outside):
        return x.sum() * 0
    own = (x[inside] @ x[inside].T - MARGIN) / SHARP
    other = (x[inside] @ x[outside].T - MARGIN) / SHARP
    pairs = ~torch.eye(len(inside), dtype=torch.bool, device=x.device)
    return (F.softplus(-own[pairs]).mean() + F.softplus(other).mean()) / 2


def drawn(
    covered: Float[Tensor, "b 1 h w"], there: Float[Tensor, "b 1 h w"], generator: torch.Generator
) -> tuple[list[Tensor], list[Tensor]]:
    """For each image the numbers of up to SAMPLED cells inside the mask, and outside of it."""
    inside, outside = [], []
    for share, has in zip(covered.flatten(1), there.flatten(1) > 0.5, strict=True):
        for kept, where in ((inside, share > INSIDE), (outside, share < OUTSIDE)):
            found = (where & has).nonzero()[:, 0]
            order = torch.randperm(len(found), generator=generator)[:SAMPLED]
            kept.append(found[order.to(found.device)])
    return inside, outside


def released(
    levels: tuple[Float[Tensor, "b c h w"], ...], sentence: Float[Tensor, "b c"]
) -> Float[Tensor, ""]:
    """TALENT's own: for each level mean over cells i of |A_i M_i - M_i|, with A the softmax of cosines and M
    where the softmax of s_i s_j exceeds 0.7, s being the cells' products with the sentence.
    """
    losses = []
    for level in levels:
        x = level.float().flatten(2).transpose(1, 2)
        unit = F.normalize(x, dim=-1)
        near = (unit @ unit.transpose(1, 2)).softmax(-1)
        with torch.no_grad():
            s = torch.einsum("bnc,bc->bn", x, sentence.float())
            wanted = ((s[:, :, None] * s[:, None]).softmax(-1) > 0.7).float()
        losses.append((near * wanted - wanted).norm(dim=-1).mean())
    return torch.stack(losses).mean()
