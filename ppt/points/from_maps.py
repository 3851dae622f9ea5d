"""A relevance map -> point prompts, without training. Three ways, all baselines that a learned generator must
beat.

- `peak_points`: one positive point on the map's highest cell.
- `surgery_points`: cells above a threshold, and as many of the lowest as negatives (CLIP Surgery, Li et al.
  2023, `similarity_map_to_points`).
- `read_points`: positive, negative and ignored points from two thresholds, up to a fixed number (READ, Qian
  et al. 2025, `similarity_map_to_points`: positives from the highest, then negatives from the lowest, then
  the rest).

A map that is flat or not finite is no evidence: the point set is empty and says so.
"""

import cv2
import numpy as np
from jaxtyping import Float32

from ppt.geometry import grid_to_pixels
from ppt.types import PointSet, RelevanceMap

NO_EVIDENCE = "no_evidence"


def no_points() -> PointSet:
    """The empty set of points: the map is no evidence."""
    return PointSet(np.zeros((0, 2), np.float32), np.zeros(0, np.int8), 0.0, (NO_EVIDENCE,))


def peak_points(relevance: RelevanceMap) -> PointSet:
    """One positive point at the centre of the highest cell; the first in reading order where several tie."""
    stretched = relevance.normalised()
    if stretched is None:
        return no_points()
    return _at_cells(
        relevance, stretched.values, np.array([int(stretched.values.argmax())]), np.array([1]), "peak"
    )


def surgery_points(relevance: RelevanceMap, threshold: float) -> PointSet:
    """CLIP Surgery's points: map halved in size, n cells >= threshold positive, the n lowest negative.

    threshold: of the min-max normalised map, in (0, 1]. n is at most half the cells. Positives come first,
    the strongest leading.
    """
    halved = _halved(relevance).normalised()
    if halved is None:
        return no_points()
    order = np.argsort(halved.values.ravel(), kind="stable")
    count = min(int((halved.values >= threshold).sum()), len(order) // 2)
    if count == 0:
        return no_points()
    cells = np.concatenate([order[::-1][:count], order[:count]])
    return _at_cells(relevance, halved.values, cells, np.repeat([1, 0], count), "surgery")


def read_points(relevance: RelevanceMap, positive: float, negative: float, most: int) -> PointSet:
    """READ's points: cells >= positive are positive, <= negative are negative, those between are ignored
    (-1).

    positive, negative: of the min-max normalised, halved map. At most `most` points: positives from the
    strongest down, then negatives from the weakest up, then ignored cells in reading order. Each point is
    moved within its neighbourhood to the soft arg-max exp(-d^2) x softmax of the map (d in cells).
    """
    halved = _halved(relevance).normalised()
    if halved is None:
        return no_points()
    values = halved.values.ravel()
    order = np.argsort(values, kind="stable")
    high = order[::-1][: int((values >= positive).sum())]
    low = order[: int((values <= negative).sum())]
    between = np.flatnonzero((values > negative) & (values < positive))
    cells = np.concatenate([high, low, between])[:most]
    labels = np.concatenate([np.ones(len(high)), np.zeros(len(low)), -np.ones(len(between))])[:most]
    return _at_cells(relevance, halved.values, cells, labels, "read", soft=True)


def _halved(relevance: RelevanceMap) -> RelevanceMap:
    """The map at half its size, smoothed, as both methods do first; sides below 4 cells stay."""
    height, width = (side // 2 if side >= 4 else side for side in relevance.values.shape)
    smaller = cv2.resize(relevance.values, (width, height), interpolation=cv2.INTER_AREA)
    return RelevanceMap(smaller, relevance.height, relevance.width)


def _at_cells(
    relevance: RelevanceMap,
    values: Float32[np.ndarray, "gh gw"],
    cells: np.ndarray,
    labels: np.ndarray,
    method: str,
    soft: bool = False,
) -> PointSet:
    """Points at the centres of `cells` (flat indices into `values`), or at soft arg-maxima around them."""
    rows, columns = np.divmod(cells, values.shape[1])
    xy = np.stack([columns, rows], 1).astype(np.float64)
    if soft:
        xy = _soft_argmax(values, xy)
    pixels = grid_to_pixels(xy, (values.shape[0], values.shape[1]), (relevance.height, relevance.width))
    # A map one peak high and flat elsewhere points surely; one high everywhere does not.
    confidence = float(np.clip(1 - values.mean(), 0, 1))
    return PointSet(pixels, labels.astype(np.int8), confidence, (method,))


def _soft_argmax(values: Float32[np.ndarray, "gh gw"], xy: np.ndarray) -> np.ndarray:
    rows, columns = np.divmod(np.arange(values.size), values.shape[1])
    grid = np.stack([columns, rows], 1).astype(np.float64)
    likelihood = np.exp(values.ravel().astype(np.float64))
    distance = ((grid[None] - xy[:, None]) ** 2).sum(2)
    weight = np.exp(-distance) * likelihood
    return weight @ grid / weight.sum(1, keepdims=True)
