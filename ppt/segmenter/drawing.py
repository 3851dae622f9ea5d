"""A click and a coarse mask -> masks with SAM's borders: for the best cells to click, of what SAM offers, the
candidate that covers the cells of the coarse mask. The one that is meant is then drawn once more, from places
well inside it, and has what most of its drawings have.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from ppt import rle
from ppt.inside import inner_points
from ppt.rle import Rle
from ppt.segmenter.frames import Frame
from ppt.types import ImageEmbedding, PointSet, PromptableModel

SAME = 0.5
"""IoU above which two masks show one thing."""
COVERED = 0.3
"""Share of a cell in a mask from which no other thing is looked for there."""

CLICKS = 2
"""The most places of which a thing is drawn once more."""


@dataclass(frozen=True, eq=False)
class Thing:
    """A mask in the image's own pixels, and the share of each cell that it covers."""

    mask: Rle
    covered: Float[np.ndarray, "g g"]


@dataclass(frozen=True)
class Canvas:
    """SAM, what it made of an image, and how that image lies in the square that the segmenter reads. What SAM
    offers for a set of places it is asked for once: several sentences come to the same.
    """

    sam: PromptableModel
    embedding: ImageEmbedding
    frame: Frame
    _offered: dict[tuple[int, bytes], list[tuple[Thing, float]]] = field(default_factory=dict, repr=False)

    def things(
        self, click: Float[np.ndarray, "g g"], share: Float[np.ndarray, "g g"], most: int = 1
    ) -> list[Thing]:
        """Up to `most` things, that of the best cell first; none where SAM offers nothing. click: how much
        speaks for each cell, any scale. share: of each cell in the coarse mask, in [0, 1].

        SAM is asked for the middle of the best cell of the image, then of the best that no mask so far
        covers. A candidate counts by its soft IoU with `share`, times its predicted IoU and its stability.
        """
        there = self.frame.there(len(click))
        left = there > there.max() / 2  # a panorama fills no cell
        found: list[Thing] = []
        for _ in range(most):
            if not left.any():
                break
            place = np.unravel_index(int(np.where(left, click, -np.inf).argmax()), click.shape)
            left[place] = False
            middle = self.frame.middle(int(place[0]), int(place[1]), len(click))
            for best in self._drawn([middle[None]], share):
                left &= best.covered < COVERED
                if all(rle.iou(best.mask, other.mask) <= SAME for other in found):
                    found.append(best)
        return found

    def redrawn(self, thing: Thing, share: Float[np.ndarray, "g g"]) -> Rle:
        """What most drawings of a thing have: itself, that from its deepest pixel, that from this and another
        well inside, and so on to `CLICKS`. It may be empty where they have nothing in common.
        """
        mask = rle.decode(thing.mask)
        if not mask.any():
            return thing.mask
        inside = np.array(inner_points(mask, CLICKS, apart=False), np.float32)
        again = self._drawn([inside[:count] for count in range(1, len(inside) + 1)], share)
        return rle.encode(np.mean([mask, *(rle.decode(one.mask) for one in again)], axis=0) > 0.5)

    def _drawn(
        self, places: Sequence[Float[np.ndarray, "_ 2"]], share: Float[np.ndarray, "g g"]
    ) -> Iterator[Thing]:
        """For each set of places to click the best of SAM's candidates; where it offers none, nothing."""
        known, grid = self._offered, len(share)
        new = [xy for xy in places if (grid, xy.tobytes()) not in known]
        prompts = [PointSet(xy, np.ones(len(xy), np.int8), 1.0) for xy in new]
        for xy, candidates in zip(new, self.sam.predict(self.embedding, prompts) if new else (), strict=True):
            things = [Thing(mask, self.frame.covered(rle.decode(mask), grid)) for mask in candidates.rles]
            trust = np.maximum(candidates.predicted_iou, 0.0) * candidates.stability.astype(float)
            known[grid, xy.tobytes()] = list(zip(things, trust.tolist(), strict=True))
        for xy in places:
            if offered := known[grid, xy.tobytes()]:
                yield max(offered, key=lambda one: _fit(one[0].covered, share) * one[1])[0]


def _fit(covered: Float[np.ndarray, "g g"], share: Float[np.ndarray, "g g"]) -> float:
    """Soft IoU."""
    either = float(np.maximum(covered, share).sum())
    return float(np.minimum(covered, share).sum()) / either if either else 0.0
