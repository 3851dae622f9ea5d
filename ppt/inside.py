"""Places well inside a mask, where a click cannot be misunderstood."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float32

DEEP = 0.4
"""Least depth of a place, as a share of the mask's largest depth: its distance to the border."""
FINE = 160
"""Pixels of the longer side at which places are looked for: a larger image is thinned out."""


def inner_points(mask: Bool[np.ndarray, "h w"], count: int, apart: bool = True) -> list[tuple[int, int]]:
    """Up to `count` distinct (x, y) inside `mask`: the deepest pixel first, then spread and deep. An empty
    mask has none. apart: farther apart than the mask is deep, so that what is compact has only one.
    """
    step = -(-max(mask.shape) // FINE)
    thin = mask[::step, ::step]
    if step > 1 and thin.any():
        return [(x * step, y * step) for x, y in inner_points(thin, count, apart)]
    depth = depth_inside(mask)
    deepest = float(depth.max())
    well = np.where(depth >= DEEP * deepest, depth, 0).astype(np.float32)
    return spread_out(well, count, apart=deepest if apart else 0.0)


def depth_inside(mask: Bool[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Each pixel's distance to the mask's border, 0 outside; beyond the image counts as outside."""
    return cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]


def spread_out(
    depth: Float32[np.ndarray, "h w"],
    count: int,
    taken: Sequence[tuple[int, int]] = (),
    apart: float = 0.0,
) -> list[tuple[int, int]]:
    """Farthest-point sampling of pixels with depth > 0: distance to those chosen, times the root of depth.

    `taken` are points to keep away from as well. Those chosen are more than `apart` pixels apart.
    """
    weight = np.sqrt(depth / max(float(depth.max()), 1e-6))
    rows, columns = np.indices(depth.shape, dtype=np.float32)
    nearest = np.full(depth.shape, np.inf, np.float32)
    for x, y in taken:
        nearest = np.minimum(nearest, np.hypot(columns - x, rows - y))
    chosen: list[tuple[int, int]] = []
    while len(chosen) < count:
        score = weight * np.minimum(nearest, max(depth.shape))
        if score.max() <= 0:
            break
        y, x = divmod(int(score.argmax()), depth.shape[1])
        chosen.append((x, y))
        nearest = np.minimum(nearest, np.hypot(columns - x, rows - y))
        weight = np.where(nearest <= apart, 0, weight)
    return chosen
