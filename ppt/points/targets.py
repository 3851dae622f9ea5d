"""A mask -> the points a generator should have named: the teaching of the point generator, without truth.

The masks are pseudo-masks (SAM's, chosen by agreement with CLIP's map), never drawn ones. Where PPT (Dai &
Yang, CVPR 2024) is silent the design is ours: positives lie well inside and spread, by farthest-point
sampling weighted with the distance to the border; negatives lie on the other things that are known, on places
that the map finds relevant too, where a generator is tempted to go, and in a ring around the object.
"""

from collections.abc import Sequence
from itertools import zip_longest

import cv2
import numpy as np
from jaxtyping import Bool

from ppt.geometry import resize_map_to_image
from ppt.inside import FINE, inner_points, spread_out
from ppt.types import PointSet, RelevanceMap

RING = (0.08, 0.3)
"""Nearest and farthest distance of the ring from the border, in square roots of the object's area."""
TEMPTING = 0.5
"""Least relevance, of the min-max normalised map, of a place worth a negative."""


def target_points(
    mask: Bool[np.ndarray, "h w"],
    relevance: RelevanceMap,
    positives: int,
    negatives: int,
    others: Sequence[Bool[np.ndarray, "h w"]] = (),
) -> PointSet:
    """Up to `positives` points inside `mask` and `negatives` outside, in that order, in original pixels.

    others: masks of things that `mask` is not. A compact thing has fewer positives, as they keep apart by its
    depth. Negatives are taken in turn from the deepest places of the others, the tempting places and the
    ring, while any has some. An empty mask has no points; a mask that fills the image has no negatives.
    """
    step = -(-max(mask.shape) // FINE)
    thin = np.ascontiguousarray(mask[::step, ::step])
    if step > 1 and thin.any():
        size = relevance.height, relevance.width
        small = RelevanceMap(relevance.values, *thin.shape) if size == mask.shape else relevance
        found = target_points(thin, small, positives, negatives, [o[::step, ::step] for o in others])
        return PointSet(found.xy * np.float32(step), found.labels, found.confidence, found.reasons)
    if not mask.any():
        return PointSet(np.zeros((0, 2), np.float32), np.zeros(0, np.int8), 0.0, ("empty_mask",))
    inside = inner_points(mask, positives)
    away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    reach = np.sqrt(mask.sum())
    ring = (away >= max(1.0, RING[0] * reach)) & (away <= max(2.0, RING[1] * reach))
    known = [point for other in others for point in inner_points(other & ~mask, 1)]
    tempting = _tempting(relevance, away >= max(1.0, RING[0] * reach), negatives)
    around = spread_out(ring.astype(np.float32), negatives, [*known, *tempting])
    in_turn = [point for points in zip_longest(known, tempting, around) for point in points if point]
    outside = list(dict.fromkeys(in_turn))[:negatives]
    xy = np.array([*inside, *outside], np.float32).reshape(-1, 2)
    labels = np.repeat([1, 0], [len(inside), len(outside)]).astype(np.int8)
    return PointSet(xy, labels, 1.0, ("target",))


def _tempting(relevance: RelevanceMap, allowed: Bool[np.ndarray, "h w"], count: int) -> list[tuple[int, int]]:
    """The most relevant allowed places, a fifth of the longer side apart."""
    stretched = relevance.normalised()
    if stretched is None:
        return []
    values = resize_map_to_image(stretched.values, relevance.height, relevance.width)
    values = np.where(allowed, values, 0)
    rows, columns = np.indices(values.shape, dtype=np.float32)
    apart, chosen = max(values.shape) / 5, []
    while len(chosen) < count and values.max() >= TEMPTING:
        y, x = divmod(int(values.argmax()), values.shape[1])
        chosen.append((x, y))
        values = np.where(np.hypot(columns - x, rows - y) < apart, 0, values)
    return chosen
