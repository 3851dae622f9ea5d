"""Which thing is meant: TALENT's target-centric contrast (arXiv 2604.00609).

released: as its code has it, for comparison. The whole image is pooled, not the mask; the temperature is 1,
there is one negative, and the mean is divided by ten.
corrected: what lies under the mask is compared with every sentence of the batch. Paraphrases of one thing are
positives together; the other sentences of the image are the hard negatives.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

SHARP = 0.07


class Contrast(nn.Module):
    """The corrected form. width: of the pixels; sentence: of the text."""

    def __init__(self, width: int, sentence: int, narrow: int = 64) -> None:
        super().__init__()
        self.pixels, self.sentence = nn.Linear(width, narrow), nn.Linear(sentence, narrow)

    def forward(
        self,
        pixels: Float[Tensor, "b c h w"],
        sentence: Float[Tensor, "b e"],
        covered: Float[Tensor, "b 1 h w"],
        same: Bool[Tensor, "b b"],
        unclear: Bool[Tensor, "b b"],
    ) -> Float[Tensor, " b"]:
        """same[i, j]: sentence j means the thing of sentence i, itself included. unclear[i, j]: it may, so
        that it is neither. 0 for a mask that covers nothing.
        """
        thing = F.normalize(self.pixels(pooled(pixels.float(), covered)), dim=-1)
        said = F.normalize(self.sentence(sentence.float()), dim=-1)
        logits = (thing @ said.T / SHARP).masked_fill(unclear & ~same, -torch.inf)
        shares = logits.log_softmax(-1).masked_fill(~same, 0)
        losses = -shares.sum(1) / same.sum(1)
        return losses * (covered.flatten(1).sum(1) > 0)


def pooled(pixels: Float[Tensor, "b c h w"], covered: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b c"]:
    """The mean of what lies under each mask; 0 where it covers nothing."""
    return (pixels * covered).flatten(2).sum(2) / covered.flatten(2).sum(2).clamp(min=1e-3)


def released(
    cells: Float[Tensor, "b c h w"],
    positive: Float[Tensor, "b c"],
    negative: Float[Tensor, "b c"],
    valid: Bool[Tensor, " b"],
) -> Float[Tensor, ""]:
    """TALENT's own: cross-entropy of the pooled image with another sentence of the thing against one of
    another thing of the image; valid: where there is one.
    """
    whole = F.normalize(cells.float().mean((2, 3)), dim=-1)
    logits = torch.stack([(whole * F.normalize(k.float(), dim=-1)).sum(-1) for k in (positive, negative)], -1)
    losses = -logits.log_softmax(-1)[:, 0] * valid
    return losses.sum() / (valid.sum().clamp(min=1) * 10)
