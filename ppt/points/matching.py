"""Which set of the generator answers for which object, and which of its points for which target point.

Bipartite matching, as DETR's (Carion et al., ECCV 2020, section 3.1), on two floors: points within a set,
sets to objects. PPT's own costs are not public; these are ours.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from ppt.points.generator import IGNORED, NEGATIVE, POSITIVE
from ppt.types import PointSet

DISTANCE_WEIGHT = 5.0
"""Of the L1 distance, in image sides, against the cross-entropy of the class."""


def match_points(
    xy: Float[np.ndarray, "k 2"],
    log_classes: Float[np.ndarray, "k 3"],
    target_xy: Float[np.ndarray, "p 2"],
    target_classes: Int[np.ndarray, " p"],
) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"], float]:
    """(points, targets) that belong together, m = min(k, p), and the cost a target.

    xy, target_xy: in [0, 1]. A target without a point costs what the worst matched one does.
    """
    distance = np.abs(xy[:, None] - target_xy[None]).sum(-1)
    # What a point gains by saying the target's class instead of "ignored".
    gain = log_classes[:, target_classes] - log_classes[:, IGNORED, None]
    cost = DISTANCE_WEIGHT * distance - gain
    points, targets = linear_sum_assignment(cost)
    paid = cost[points, targets]
    missing = len(target_xy) - len(targets)
    return points, targets, float((paid.sum() + missing * paid.max()) / len(target_xy))


def match_sets(
    xy: Float[np.ndarray, "s k 2"],
    log_classes: Float[np.ndarray, "s k 3"],
    objects: Sequence[tuple[Float[np.ndarray, "p 2"], Int[np.ndarray, " p"]]],
) -> list[tuple[int, int, Int[np.ndarray, " m"], Int[np.ndarray, " m"]]]:
    """(set, object, points, targets) for as many objects as there are sets, at the lowest total cost."""
    pairs = [
        [match_points(xy[s], log_classes[s], where, what) for where, what in objects] for s in range(len(xy))
    ]
    cost = np.array([[pair[2] for pair in row] for row in pairs]).reshape(len(xy), len(objects))
    return [(int(s), int(o), *pairs[s][o][:2]) for s, o in zip(*linear_sum_assignment(cost), strict=True)]


def target_classes(points: PointSet) -> Int[np.ndarray, " n"]:
    """The generator's class of every point of `points`, from SAM's label."""
    return np.array([{1: POSITIVE, 0: NEGATIVE, -1: IGNORED}[int(label)] for label in points.labels])
