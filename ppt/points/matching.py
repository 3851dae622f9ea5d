"""Which set of the generator answers for which thing, and which of its points for which target point.

Bipartite matching, as DETR's (Carion et al., ECCV 2020, section 3.1), on two floors: sets to things by shape,
points within a set by place and class. PPT's own costs are not public; these are ours.
"""

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ppt.points.generator import IGNORED, NEGATIVE, POSITIVE
from ppt.types import PointSet

DISTANCE_WEIGHT = 5.0
"""Of the L1 distance, in image sides, against the cross-entropy of the class."""


def match_points(
    xy: Float[np.ndarray, "k 2"],
    log_classes: Float[np.ndarray, "k 3"],
    target_xy: Float[np.ndarray, "p 2"],
    target_classes: Int[np.ndarray, " p"],
) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"]]:
    """(points, targets) that belong together, m = min(k, p), at the lowest total cost. xy, target_xy: in
    [0, 1].
    """
    distance = np.abs(xy[:, None] - target_xy[None]).sum(-1)
    # What a point gains by saying the target's class instead of "ignored".
    gain = log_classes[:, target_classes] - log_classes[:, IGNORED, None]
    cost = DISTANCE_WEIGHT * distance - gain
    points, targets = linear_sum_assignment(cost)
    return points, targets


def match_things(
    shapes: Float[Tensor, "s n"], covers: Float[Tensor, "t n"], on_anchor: Float[Tensor, "s t"]
) -> list[tuple[int, int]]:
    """(set, thing) for as many things as there are sets, at the highest total of Dice, of the sets' shapes
    with what the things cover, and of how much of the set's anchor each thing covers, which counts twice.
    """
    both = shapes @ covers.T
    dice = 2 * both / (shapes.sum(1)[:, None] + covers.sum(1)[None] + 1e-6)
    found = linear_sum_assignment(-(dice + 2 * on_anchor).numpy())
    return [(int(s), int(t)) for s, t in zip(*found, strict=True)]


def target_classes(points: PointSet) -> Int[np.ndarray, " n"]:
    """The generator's class of every point of `points`, from SAM's label."""
    return np.array([{1: POSITIVE, 0: NEGATIVE, -1: IGNORED}[int(label)] for label in points.labels])
