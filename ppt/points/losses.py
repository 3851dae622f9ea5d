"""What the point generator learns from: where its points should be, of which class, and which set is meant.

Sets are matched to the things of an image (`matching`), so that a set is free to find any of them. The
points learn from every matched thing; the confidence learns which of them the sentence means, by comparison.
PPT's own losses are not public; these are DETR's (Carion et al., ECCV 2020), on two floors, and ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ppt.points.generator import IGNORED, PointSets
from ppt.points.lessons import Lesson
from ppt.points.matching import match_sets


@dataclass(frozen=True)
class Losses:
    """Means over the lessons, weighted by how sure they are: scalars with gradients."""

    distance: Float[Tensor, ""]
    classes: Float[Tensor, ""]
    confidence: Float[Tensor, ""]

    def total(self, distance: float, classes: float, confidence: float) -> Float[Tensor, ""]:
        """The weighted sum."""
        return distance * self.distance + classes * self.classes + confidence * self.confidence


def point_losses(sets: PointSets, lessons: Sequence[Lesson], ignore: bool = True) -> Losses:
    """The losses of a batch; lessons[i] is about pair i.

    distance: L1 in image sides of the points matched to a target. classes: cross-entropy of all points of the
    matched sets; a point without a target should say IGNORED, and with `ignore` False is not taught.
    confidence: cross-entropy, among the sets, of the one matched to the thing the sentence means.
    """
    where = sets.xy.detach().float().cpu().numpy()
    what = sets.classes.detach().float().log_softmax(-1).cpu().numpy()
    wanted_class = torch.full(sets.classes.shape[:3], IGNORED)
    wanted_xy = torch.zeros(sets.xy.shape)
    placed, taught = torch.zeros(sets.xy.shape[:3]), torch.zeros(sets.xy.shape[:3])
    meant, found = torch.zeros(len(lessons), dtype=torch.long), torch.zeros(len(lessons))
    for pair, lesson in enumerate(lessons):
        for chosen, thing, points, targets in match_sets(where[pair], what[pair], lesson.things):
            xy, classes = lesson.things[thing]
            taught[pair, chosen, slice(None) if ignore else points] = lesson.sure
            placed[pair, chosen, points] = lesson.sure
            wanted_xy[pair, chosen, points] = torch.from_numpy(xy[targets])
            wanted_class[pair, chosen, points] = torch.from_numpy(classes[targets])
            if thing == 0:
                meant[pair], found[pair] = chosen, lesson.sure
    device = sets.xy.device
    wanted_class, wanted_xy, placed, taught, meant, found = (
        value.to(device) for value in (wanted_class, wanted_xy, placed, taught, meant, found)
    )
    off = (sets.xy.float() - wanted_xy).abs().sum(-1)
    wrong = F.cross_entropy(sets.classes.float().flatten(0, 2), wanted_class.flatten(), reduction="none")
    mistaken = F.cross_entropy(sets.confidence.float(), meant, reduction="none")
    return Losses(_mean(off, placed), _mean(wrong.view_as(taught), taught), _mean(mistaken, found))


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp(min=1e-6)
