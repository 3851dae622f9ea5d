"""Masks as polygons that are the masks: outlines along the pixels' edges, not through their centres.

Coordinates are original pixels with corners at integers: pixel (x, y) is the square from (x, y) to (x + 1,
y + 1), as COCO has them. Outer rings run clockwise as one sees them, holes the other way; a hole is joined to
what surrounds it by a cut there and back, which encloses nothing. Filled by the even-odd rule such a polygon
gives the mask again, to the pixel.
"""

from collections.abc import Sequence
from typing import TypeAlias

import cv2
import numpy as np
from jaxtyping import Bool, Int64

from ppt import rle
from ppt.rle import Rle

Ring: TypeAlias = Int64[np.ndarray, "_ 2"]


def parts(mask: Rle) -> list[list[float]]:
    """A polygon [x0, y0, x1, y1, ...] for each part of the mask, in which pixels touch by their edges, with
    its holes cut open. None for an empty mask.
    """
    return [ring.reshape(-1).astype(float).tolist() for ring in _parts(rle.decode(mask))]


def single(mask: Rle) -> list[float]:
    """One polygon for the whole mask: its parts joined by cuts, too. Raises ValueError for an empty mask."""
    rings = _parts(rle.decode(mask))
    if not rings:
        raise ValueError("an empty mask has no outline")
    return _joined(rings).reshape(-1).astype(float).tolist()


def overlap(mask: Rle, polygons: Sequence[Sequence[float]]) -> float:
    """IoU in [0, 1] of a mask and polygons of it, as pycocotools fills them."""
    return rle.iou(mask, rle.from_polygons(polygons, mask.height, mask.width))


def _parts(mask: Bool[np.ndarray, "h w"]) -> list[Ring]:
    """An outline for each part, joined with those of its holes; parts in the order of their first pixel."""
    labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)[1]
    by_part: dict[int, list[Ring]] = {}
    for ring in _rings(mask):
        x, y = (int(value) for value in ring[0])
        if labels[y, x]:  # the pixel below its first corner is inside
            by_part.setdefault(int(labels[y, x]), []).insert(0, ring)
        else:
            by_part.setdefault(int(labels[y, x - 1]), []).append(_reversed(ring))
    return [_joined(rings) for rings in by_part.values()]


def _rings(mask: Bool[np.ndarray, "h w"]) -> list[Ring]:
    """Every closed outline of the mask, its corners alone, from its topmost, leftmost corner to the right.

    Where two pixels touch by a corner alone, the outline turns, so that they are apart.
    """
    padded = np.pad(mask, 1).astype(np.int8)
    nw, ne, sw, se = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    odd = (nw + ne + sw + se) % 2 == 1
    crossed = (nw == se) & (ne == sw) & (nw != ne)
    ys, xs = np.nonzero(odd | crossed)
    # A corner where outlines cross is two corners: one ends the edge from the left, one begins that to the
    # right. Which of them has the edge from above depends on which pixels are inside.
    twice = np.repeat(np.arange(len(ys)), 1 + crossed[ys, xs])
    ys, xs = ys[twice], xs[twice]
    second = np.concatenate(([False], twice[1:] == twice[:-1])) if len(twice) else np.zeros(0, bool)
    along = _paired(np.arange(len(ys)))
    upright = nw[ys, xs] == 1
    below = np.where(crossed[ys, xs], second == upright, False)
    down = _paired(np.lexsort((below, ys, xs)))
    corners = np.stack((xs, ys), 1)
    return [corners[cycle] for cycle in _cycles(along.tolist(), down.tolist())]


def _paired(order: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Of corners in the order in which a line meets them: the other end of each one's edge."""
    partner = np.empty_like(order)
    partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]
    return partner


def _cycles(along: list[int], down: list[int]) -> list[list[int]]:
    cycles: list[list[int]] = []
    seen = bytearray(len(along))
    for start in range(len(along)):
        if seen[start]:
            continue
        cycle, at = [], start
        while not seen[at]:
            over = along[at]
            seen[at] = seen[over] = 1
            cycle += (at, over)
            at = down[over]
        cycles.append(cycle)
    return cycles


def _reversed(ring: Ring) -> Ring:
    return np.roll(ring[::-1], 1, axis=0)


def _joined(rings: Sequence[Ring]) -> Ring:
    """Rings as one: each is cut open at its corner nearest to those before, and run through from there."""
    whole = rings[0]
    for ring in rings[1:]:
        distances = ((whole[:, None] - ring[None]) ** 2).sum(-1)
        at, nearest = divmod(int(distances.argmin()), len(ring))
        opened = np.roll(ring, -nearest, axis=0)
        cut = (whole[: at + 1], opened, opened[:1], whole[at:])
        whole = np.concatenate(cut)
    repeated = (whole == np.roll(whole, 1, axis=0)).all(1)
    return whole[~repeated]
