"""The mask: pixel by pixel, and as a whole; and the click that is to lie in it.

Targets are shares of each pixel of the logits' grid that the mask covers, in [0, 1].
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

FOCUS, BALANCE = 2.0, 0.25
"""Of the focal loss (Lin et al., ICCV 2017, section 3.2)."""


def cross_entropy(
    logits: Float[Tensor, "b 1 h w"],
    target: Float[Tensor, "b 1 h w"],
    pixels: Float[Tensor, "b 1 h w"],
) -> Float[Tensor, ""]:
    """Mean over all pixels, weighted by `pixels`; 0 where those are all 0, as over what pads an image."""
    loss = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    return (loss * pixels).sum() / pixels.sum().clamp(min=1e-6)


def focal(
    logits: Float[Tensor, "b 1 h w"],
    target: Float[Tensor, "b 1 h w"],
    pixels: Float[Tensor, "b 1 h w"],
) -> Float[Tensor, ""]:
    """As `cross_entropy`, less of what is easy."""
    logits = logits.float()
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    share = logits.sigmoid()
    off = share * (1 - target) + (1 - share) * target
    side = BALANCE * target + (1 - BALANCE) * (1 - target)
    return (side * off.pow(FOCUS) * loss * pixels).sum() / pixels.sum().clamp(min=1e-6)


def dice(
    logits: Float[Tensor, "b 1 h w"], target: Float[Tensor, "b 1 h w"], there: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, " b"]:
    """1 less Dice of each mask (Milletari et al., 3DV 2016), 1 added above and below. there: 0 in padding."""
    share, target = _flat(logits, target, there)
    both = (share * target).sum(1)
    return 1 - (2 * both + 1) / (share.sum(1) + target.sum(1) + 1)


def soft_iou(
    logits: Float[Tensor, "b 1 h w"], target: Float[Tensor, "b 1 h w"], there: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, " b"]:
    """1 less the soft IoU of each mask, as TALENT's code has it, 1 added above and below."""
    share, target = _flat(logits, target, there)
    both = (share * target).sum(1)
    return 1 - (both + 1) / (share.sum(1) + target.sum(1) - both + 1)


def point(click: Float[Tensor, "b h w"], target: Float[Tensor, "b 1 h w"]) -> Float[Tensor, " b"]:
    """-log of how much of a click, spread over cells in shares that add up to 1, falls into each mask; 0 for
    an empty one.
    """
    inside = (click * target[:, 0]).sum((1, 2))
    return -torch.log(inside.clamp(min=1e-6)) * (target.flatten(1).sum(1) > 0)


def weighted(losses: Float[Tensor, " b"], weights: Float[Tensor, " b"]) -> Float[Tensor, ""]:
    """Mean of the sentences' losses by how far each is believed; 0 where none is."""
    return (losses * weights).sum() / weights.sum().clamp(min=1e-6)


def _flat(logits: Tensor, target: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    return (logits.float().sigmoid() * there).flatten(1), (target * there).flatten(1)


def pixel_confidence(share: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
    """How far a soft label is believed at each pixel, least where it is undecided: SemiRES's weight (Yang et
    al., ICML 2024, as its code has it), 0.04 at 0.5 and 0.94 at 0 and 1.
    """
    spread = 0.1
    normal = torch.exp(-((share - 0.5) ** 2) / (2 * spread)) / (2 * torch.pi * spread) ** 0.5
    return 1.3 - normal
