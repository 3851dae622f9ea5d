"""What the point generator learns from: where things are and what they look like, where points belong and of
which class, and which thing is meant.

Sets are matched to the things of an image (`matching`), so that a set is free to find any of them. PPT's own
losses are not public; these are DETR's (Carion et al., ECCV 2020) for sets and points, MaskFormer's (Cheng et
al., NeurIPS 2021, section 3.3) for shapes, CenterNet's (Zhou et al. 2019, section 3) for middles, and ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ppt.points.generator import IGNORED, POSITIVE, PointSets
from ppt.points.judge import Panel
from ppt.points.lessons import Lesson
from ppt.points.matching import match_points, match_things
from ppt.points.reading import Reading
from ppt.points.scene import Scene

SPREAD = 0.035
"""Standard deviation, in image sides, of the blur of a target: about a cell."""


@dataclass(frozen=True)
class Losses:
    """Means over what is taught, weighted by how sure the lessons are: scalars with gradients.

    middle: focal, of the cells that are the middle of a thing. shape: cross-entropy and Dice of the matched
    sets' shapes. distance: L1 in image sides of the points matched to a target. look: cross-entropy of their
    attention with the target, blurred. classes: cross-entropy of the points of the matched sets. An anchor
    is where it is, and positive: it is no part of distance, look and classes.
    """

    middle: Float[Tensor, ""]
    shape: Float[Tensor, ""]
    distance: Float[Tensor, ""]
    look: Float[Tensor, ""]
    classes: Float[Tensor, ""]


def point_losses(
    sets: PointSets,
    scene: Scene,
    lessons: Sequence[Lesson],
    ignore: bool = True,
    verdicts: tuple[Tensor, Tensor] | None = None,
) -> Losses:
    """The losses of a batch; lessons[i] is about pair i of the scene.

    A point says what it is where it is: one that was matched to a positive target but lies outside the thing
    should say IGNORED, and so should one without a target. With `ignore` False a matched point says its
    target's class and the others are not taught. `verdicts`, classes and weights (b, s, k), are SAM's and
    take the place of both.
    """
    covers, known = covers_of(lessons, scene)
    device = sets.xy.device
    taught = _taught(sets, lessons, covers, ignore)
    wanted_class, wanted_xy, placed, told, wanted_shape, matched = (v.to(device) for v in taught)
    if verdicts is not None:
        wanted_class, told = verdicts
    sure = torch.tensor([lesson.sure for lesson in lessons], device=device)
    has, xy = scene.has_cell.flatten(1), scene.xy.flatten(1, 2)
    off = (sets.xy.float() - wanted_xy).abs().sum(-1)
    wrong = F.cross_entropy(sets.classes.float().flatten(0, 2), wanted_class.flatten(), reduction="none")
    blurred = _blurred(wanted_xy, xy, has)
    missed = -(blurred * (sets.looks + 1e-8).log()).sum(-1)
    chosen = torch.arange(sets.xy.shape[2], device=device) > 0  # the anchor is where it is, and positive
    return Losses(
        _middle(sets.middles, lessons, covers, known, xy, has, sure),
        _mean(_shape(sets.shapes, wanted_shape, has), matched),
        _mean(off, placed * chosen),
        _mean(missed, placed * chosen),
        _mean(wrong.view_as(told), told * chosen),
    )


def confidence_loss(panel: Panel, reading: Reading, meant: Sequence[int]) -> Float[Tensor, ""]:
    """Cross-entropy of how sure the judges are of each thing, summed over them; meant[i]: which thing
    sentence i means.

    Taught where all things are known, as it is a comparison, and on the things themselves: on what the sets
    find it learns worse, and a search costs far more than a reading.
    """
    shares = panel.each(reading).float()
    return -shares[:, torch.arange(len(meant)), list(meant)].mean(1).sum()


def covers_of(lessons: Sequence[Lesson], scene: Scene) -> tuple[Float[Tensor, "b t n"], Bool[Tensor, "b t"]]:
    """What the things of each lesson cover on the scene's padded grid, and which things there are."""
    most = max(len(lesson.covers) for lesson in lessons)
    covers = torch.zeros(len(lessons), most, *scene.grid)
    known = torch.zeros(len(lessons), most, dtype=torch.bool)
    for i, lesson in enumerate(lessons):
        things, rows, columns = lesson.covers.shape
        covers[i, :things, :rows, :columns] = torch.from_numpy(lesson.covers)
        known[i, :things] = True
    return covers.flatten(2).to(scene.cells.device), known.to(scene.cells.device)


@torch.no_grad()
def _taught(sets: PointSets, lessons: Sequence[Lesson], covers: Tensor, ignore: bool) -> tuple[Tensor, ...]:
    """By matching: classes, places, weights of both for every point; shape and weight for every set."""
    where = sets.xy.float().cpu().numpy()
    what = sets.classes.float().log_softmax(-1).cpu().numpy()
    shapes, covers = sets.shapes.float().sigmoid().cpu(), covers.cpu()
    anchors = sets.anchors.cpu()
    on_anchor = covers.transpose(1, 2).gather(1, anchors[..., None].expand(-1, -1, covers.shape[1]))
    inside = torch.einsum("bskn,btn->bskt", sets.looks.float().cpu(), covers)
    b, s, k = sets.xy.shape[:3]
    classes, xy = torch.full((b, s, k), IGNORED), torch.zeros(b, s, k, 2)
    placed, told = torch.zeros(b, s, k), torch.zeros(b, s, k)
    wanted, matched = torch.zeros(shapes.shape), torch.zeros(b, s)
    for pair, lesson in enumerate(lessons):
        count = len(lesson.things)
        for chosen, thing in match_things(shapes[pair], covers[pair, :count], on_anchor[pair, :, :count]):
            wanted[pair, chosen], matched[pair, chosen] = covers[pair, thing], lesson.sure
            target_xy, target_classes = lesson.things[thing]
            points, targets = match_points(where[pair, chosen], what[pair, chosen], target_xy, target_classes)
            placed[pair, chosen, points] = lesson.sure
            xy[pair, chosen, points] = torch.from_numpy(target_xy[targets])
            said = torch.from_numpy(target_classes[targets])
            if ignore:
                lies = inside[pair, chosen, points, thing] > 0.5
                right = torch.where(said == POSITIVE, lies, ~lies)
                said = torch.where(right, said, IGNORED)
            told[pair, chosen, slice(None) if ignore else points] = lesson.sure
            classes[pair, chosen, points] = said
    return classes, xy, placed, told, wanted, matched


def _middle(
    middles: Tensor,
    lessons: Sequence[Lesson],
    covers: Tensor,
    known: Tensor,
    xy: Tensor,
    has: Tensor,
    sure: Tensor,
) -> Float[Tensor, ""]:
    """Where not all things are known, only cells of known things can be wrong."""
    deepest = torch.zeros(*known.shape, 2)
    for i, lesson in enumerate(lessons):
        for thing, (points, _) in enumerate(lesson.things):
            deepest[i, thing] = torch.from_numpy(points[0])
    near = _gaussian(deepest.to(xy.device), xy) * known[..., None]
    target = near.amax(1)
    middles = middles.float()
    share, peak = middles.sigmoid(), (target > 0.75).float()
    loss = -peak * (1 - share).square() * F.logsigmoid(middles)
    loss = loss - (1 - peak) * (1 - target) ** 4 * share.square() * F.logsigmoid(-middles)
    complete = torch.tensor([lesson.complete for lesson in lessons], device=xy.device)
    judged = has & (complete[:, None] | (covers.amax(1) > 0.5) | (peak > 0))
    weight = sure[:, None] * judged
    return (loss * weight).sum() / (peak * weight).sum().clamp(min=1)


def _shape(shapes: Tensor, wanted: Tensor, has: Tensor) -> Float[Tensor, "b s"]:
    has = has[:, None].to(shapes.dtype)
    wrong = F.binary_cross_entropy_with_logits(shapes.float(), wanted, reduction="none")
    share = shapes.float().sigmoid() * has
    return 2 * (wrong * has).sum(-1) / has.sum(-1) + dice_loss(share, wanted)


def dice_loss(share: Float[Tensor, "*b n"], wanted: Float[Tensor, "*b n"]) -> Float[Tensor, "*b"]:
    """1 less Dice over the last axis, with 1 added above and below."""
    both = (share * wanted).sum(-1)
    return 1 - (2 * both + 1) / (share.sum(-1) + wanted.sum(-1) + 1)


def _gaussian(places: Float[Tensor, "b t 2"], xy: Float[Tensor, "b n 2"]) -> Float[Tensor, "b t n"]:
    """1 at the place, falling off over SPREAD."""
    return torch.exp(-(places[:, :, None] - xy[:, None]).square().sum(-1) / (2 * SPREAD**2))


def _blurred(
    places: Float[Tensor, "b s k 2"], xy: Float[Tensor, "b n 2"], has: Tensor
) -> Float[Tensor, "b s k n"]:
    """A share of each cell in a target, which sums to 1."""
    away = (places[:, :, :, None] - xy[:, None, None]).square().sum(-1) / (2 * SPREAD**2)
    return (-away).masked_fill(~has[:, None, None], -1e4).softmax(-1)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp(min=1e-6)
