"""The mask loss: points -> frozen SAM -> its mask, against the pseudo-mask. SAM's prompt encoder is smooth in
xy, so the loss moves points to where SAM does better with them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from ppt.backbones.sam import ImageEmbedding, SamModel
from ppt.points.generator import NEGATIVE, POSITIVE, PointSets
from ppt.points.lessons import Lesson
from ppt.points.losses import covers_of, dice_loss
from ppt.points.scene import Scene


@dataclass(frozen=True, eq=False)
class ThroughSam:
    """What SAM made of an image, and the masks (t, h, w) of its things on SAM's low-resolution grid, in
    255ths of a cell.
    """

    embedding: ImageEmbedding
    masks: UInt8[Tensor, "t h w"]


def sam_loss(
    sam: SamModel,
    sets: PointSets,
    scene: Scene,
    lessons: Sequence[Lesson],
    embedded: Sequence[ThroughSam | None],
) -> Float[Tensor, ""]:
    """Cross-entropy and Dice of SAM's single mask for the set that fits the thing each lesson means best; 0
    where no image is embedded. The gradient reaches the points' xy alone: a label is no number.
    """
    covers, _ = covers_of(lessons, scene)
    losses: list[Tensor] = []
    for pair, (lesson, through) in enumerate(zip(lessons, embedded, strict=True)):
        if through is not None and lesson.sure > 0:
            cover = covers[pair, lesson.meant]
            shapes = sets.shapes[pair].detach().sigmoid()
            dice = (shapes @ cover) / (shapes.sum(-1) + cover.sum() + 1e-6)
            best = int(dice.argmax())
            height, width = through.embedding.original_size
            xy = sets.xy[pair, best] * torch.tensor([width, height], device=sets.xy.device) - 0.5
            logits = sam.mask_logits(through.embedding, xy, sam_labels(sets.classes[pair, best]))
            wanted = through.masks[lesson.meant].to(logits.device, torch.float32) / 255
            losses.append(_mask_loss(logits, wanted))
    return torch.stack(losses).mean() if losses else sets.xy.sum() * 0


def sam_labels(classes: Float[Tensor, "k 3"]) -> Tensor:
    """SAM's labels: 1, 0, and -1 for a point that is ignored."""
    said = classes.argmax(-1)
    labels = torch.full_like(said, -1)
    labels[said == POSITIVE], labels[said == NEGATIVE] = 1, 0
    return labels


def _mask_loss(logits: Float[Tensor, "h w"], wanted: Float[Tensor, "h w"]) -> Float[Tensor, ""]:
    dice = dice_loss(logits.sigmoid().flatten(), wanted.flatten())
    return F.binary_cross_entropy_with_logits(logits, wanted) + dice
