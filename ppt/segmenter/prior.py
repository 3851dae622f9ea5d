"""What CLIP finds relevant before anything is learned: how far each cell is lit by the sentence, and by each
of its words read alone, less what the cells of the image have in common; and where each cell lies, seen from
the middle of what the sentence lights. A segmenter that starts from the towers' channels alone has to learn
anew what their joint space holds, and that "left" means less x than the others that could be meant.

Ours. Cosines as features are CAT-Seg's (Cho et al., CVPR 2024); places compared are what teaches the point
generator's judge.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ppt.segmenter.layers import Wanted, places

SHARP = 10.0
"""Scale of cosines that differ by tenths."""


class Prior(nn.Module):
    """A map that says where which word is lit. words: width of the words as they are read in the sentence;
    joint: of CLIP's space.
    """

    def __init__(self, words: int, joint: int, width: int) -> None:
        super().__init__()
        self.sentence = nn.Conv2d(1, width, 1)
        self.words = nn.Linear(words, width)
        self.wanted = Wanted(joint, 2 * width)

    def forward(
        self,
        tap: Float[Tensor, "b e h w"],
        sentence: Float[Tensor, "b e"],
        alone: Float[Tensor, "b t e"],
        words: Float[Tensor, "b t d"],
        there: Bool[Tensor, "b t"],
    ) -> Float[Tensor, "b c h w"]:
        """tap: of CLIP's joint space. alone: each word's vector there."""
        alone = F.normalize(alone, dim=-1)
        lit = _lit(tap, torch.cat([F.normalize(sentence, dim=-1)[:, None], alone], 1))
        each = lit[:, 1:] * there[..., None, None]
        spoken = self.sentence(lit[:, :1]) + torch.einsum("bthw,btc->bchw", each, self.words(words))
        wanted = self.wanted(alone, there).unflatten(1, (2, -1))
        return spoken + torch.einsum("bkhw,bkc->bchw", seen_from(lit[:, 0]), wanted)


def seen_from(lit: Float[Tensor, "b h w"]) -> Float[Tensor, "b 2 h w"]:
    """x and y of every cell, seen from the middle of what is lit, in halves of the map's sides."""
    where = places(lit[:, None])
    share = lit.flatten(1).softmax(1).view_as(lit)
    middle = torch.einsum("bhw,bkhw->bk", share, where)
    return where - middle[..., None, None]


def _lit(tap: Float[Tensor, "b e h w"], asked: Float[Tensor, "b t e"]) -> Float[Tensor, "b t h w"]:
    """Cosines, less their mean over the cells."""
    cosines = torch.einsum("behw,bte->bthw", F.normalize(tap, dim=1), asked)
    return SHARP * (cosines - cosines.mean((2, 3), keepdim=True))
