"""What CLIP finds relevant before anything is learned: how far each cell is lit by the sentence, and by each
of its words read alone, less what the cells of the image have in common. A segmenter that starts from the
towers' channels alone has to learn anew what their joint space holds. Ours; cosines as features are CAT-Seg's
(Cho et al., CVPR 2024).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

SHARP = 10.0
"""Scale of cosines that differ by tenths."""


class Prior(nn.Module):
    """A map that says where which word is lit. words: width of the words as they are read in the sentence."""

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.sentence = nn.Conv2d(1, width, 1)
        self.words = nn.Linear(words, width)

    def forward(
        self,
        tap: Float[Tensor, "b e h w"],
        sentence: Float[Tensor, "b e"],
        alone: Float[Tensor, "b t e"],
        words: Float[Tensor, "b t d"],
        there: Bool[Tensor, "b t"],
    ) -> Float[Tensor, "b c h w"]:
        """tap: of CLIP's joint space. alone: each word's vector there."""
        asked = torch.cat([sentence[:, None], alone], 1)
        lit = _lit(tap, asked)
        each = lit[:, 1:] * there[..., None, None]
        return self.sentence(lit[:, :1]) + torch.einsum("bthw,btc->bchw", each, self.words(words))


def _lit(tap: Float[Tensor, "b e h w"], asked: Float[Tensor, "b t e"]) -> Float[Tensor, "b t h w"]:
    """Cosines, less their mean over the cells."""
    cells, said = F.normalize(tap, dim=1), F.normalize(asked, dim=-1)
    cosines = torch.einsum("behw,bte->bthw", cells, said)
    return SHARP * (cosines - cosines.mean((2, 3), keepdim=True))
