"""Points through frozen SAM: what its masks say of the points, against the pseudo-mask.

Two lessons come of it. The *mask loss*: SAM's prompt encoder is smooth in xy, so it moves points to where SAM
does better with them. And the *verdicts*: a point is worth saying only if SAM does better with it than with
the anchor alone; the others should be ignored.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int64, UInt8
from torch import Tensor

from ppt.backbones.sam import ImageEmbedding, SamModel
from ppt.points.examples import to_pixels
from ppt.points.generator import IGNORED, NEGATIVE, POSITIVE, PointSets
from ppt.points.lessons import Lesson
from ppt.points.losses import covers_of, dice_loss
from ppt.points.scene import Scene
from ppt.types import PointSet

WORTH = 0.01
"""Least gain in IoU for which a point is worth saying."""


@dataclass(frozen=True, eq=False)
class ThroughSam:
    """What SAM made of an image, and the masks (t, h, w) of its things on SAM's low-resolution grid, in
    255ths of a cell.
    """

    embedding: ImageEmbedding
    masks: UInt8[Tensor, "t h w"]


@dataclass(frozen=True)
class Asked:
    """One set that is led through SAM: its pair and its number, SAM's image, and the mask that is wanted."""

    pair: int
    best: int
    embedding: ImageEmbedding
    wanted: Float[Tensor, "h w"]


def led_through(
    sets: PointSets, scene: Scene, lessons: Sequence[Lesson], embedded: Sequence[ThroughSam | None]
) -> list[Asked]:
    """Of each pair whose image is embedded, the set whose shape fits the thing that the lesson means best."""
    covers, _ = covers_of(lessons, scene)
    found: list[Asked] = []
    for pair, (lesson, through) in enumerate(zip(lessons, embedded, strict=True)):
        if through is not None and lesson.sure > 0:
            cover = covers[pair, lesson.meant]
            shapes = sets.shapes[pair].detach().sigmoid()
            dice = (shapes @ cover) / (shapes.sum(-1) + cover.sum() + 1e-6)
            wanted = through.masks[lesson.meant].to(cover.device, torch.float32) / 255
            found.append(Asked(pair, int(dice.argmax()), through.embedding, wanted))
    return found


def sam_loss(sam: SamModel, sets: PointSets, asked: Sequence[Asked]) -> Float[Tensor, ""]:
    """Cross-entropy and Dice of SAM's single mask for each set, mean; 0 without any. Every point is positive
    or negative by where it lies, so that ignored ones move too. The gradient reaches the points' xy alone.
    """
    losses: list[Tensor] = []
    for one in asked:
        height, width = one.embedding.original_size
        xy = sets.xy[one.pair, one.best]
        inside = _at((one.wanted > 0.5).cpu().numpy(), xy.detach().float().cpu().numpy())
        pixels = xy * torch.tensor([width, height], device=xy.device) - 0.5
        logits = sam.mask_logits(one.embedding, pixels, torch.from_numpy(inside.astype(np.int64)))
        wanted = one.wanted.to(logits.device)
        wrong = F.binary_cross_entropy_with_logits(logits, wanted)
        losses.append(wrong + dice_loss(logits.sigmoid().flatten(), wanted.flatten()))
    return torch.stack(losses).mean() if losses else sets.xy.sum() * 0


@torch.no_grad()
def verdicts(
    sam: SamModel, sets: PointSets, asked: Sequence[Asked], negative: bool = True
) -> tuple[Int64[Tensor, "b s k"], Float[Tensor, "b s k"]]:
    """The class that each point of the sets asked should say, and 1 where that is known.

    A point says its side, inside or outside, if the best of SAM's masks gains WORTH by it over the anchor
    alone, and never if the anchor lies outside. The anchor is POSITIVE. Without `negative` no point outside
    says so.
    """
    classes = torch.full(sets.xy.shape[:3], IGNORED, device=sets.xy.device)
    classes[:, :, 0] = POSITIVE
    told = torch.zeros(sets.xy.shape[:3], device=sets.xy.device)
    for one in asked:
        xy = sets.xy[one.pair, one.best].float().cpu().numpy()
        wanted = (one.wanted > 0.5).cpu().numpy()
        told[one.pair, one.best] = 1
        inside = _at(wanted, xy)
        if not inside[0]:
            continue
        worth = _worth(sam, one.embedding, xy, inside, wanted) & (inside | negative)
        said = np.where(worth, np.where(inside, POSITIVE, NEGATIVE), IGNORED)
        classes[one.pair, one.best, 1:] = torch.from_numpy(said[1:]).to(classes)
    return classes, told


def _worth(
    sam: SamModel,
    embedding: ImageEmbedding,
    xy: Float32[np.ndarray, "k 2"],
    inside: Bool[np.ndarray, " k"],
    wanted: Bool[np.ndarray, "h w"],
) -> Bool[np.ndarray, " k"]:
    pixels = to_pixels(xy, embedding.original_size)
    labels = inside.astype(np.int8)
    alone = PointSet(pixels[:1], labels[:1], 1.0, ())
    pairs = [PointSet(pixels[[0, j]], labels[[0, j]], 1.0, ()) for j in range(1, len(xy))]
    best = np.zeros(len(xy))
    for index, logits, _ in sam.logits(embedding, [alone, *pairs]):
        masks = F.interpolate(logits[None], wanted.shape, mode="area")[0].cpu().numpy() > 0
        both, either = (masks & wanted).sum((1, 2)), (masks | wanted).sum((1, 2))
        best[index] = float((both / np.maximum(either, 1)).max())
    return best > best[0] + WORTH


def _at(mask: Bool[np.ndarray, "h w"], xy: Float32[np.ndarray, "k 2"]) -> Bool[np.ndarray, " k"]:
    """Whether each place in [0, 1] of the image lies in the mask."""
    columns, rows = (xy * [mask.shape[1], mask.shape[0]]).astype(int).T
    return mask[rows.clip(0, mask.shape[0] - 1), columns.clip(0, mask.shape[1] - 1)]
