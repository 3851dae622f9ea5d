"""A click and a coarse mask -> masks with SAM's borders: for the best cells to click, of what SAM offers, the
candidate that covers the cells of the coarse mask.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ppt import rle
from ppt.rle import Rle
from ppt.segmenter.frames import Frame
from ppt.types import ImageEmbedding, PointSet, PromptableModel

SAME = 0.5
"""IoU above which two masks show one thing."""
COVERED = 0.3
"""Share of a cell in a mask from which no other thing is looked for there."""


@dataclass(frozen=True, eq=False)
class Thing:
    """A mask in the image's own pixels, and the share of each cell that it covers."""

    mask: Rle
    covered: Float[np.ndarray, "g g"]


@dataclass(frozen=True)
class Canvas:
    """SAM, what it made of an image, and how that image lies in the square that the segmenter reads."""

    sam: PromptableModel
    embedding: ImageEmbedding
    frame: Frame

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
            offered = [*self._offered(int(place[0]), int(place[1]), len(click))]
            if offered:
                best = max(offered, key=lambda one: _fit(one[0].covered, share) * one[1])[0]
                left &= best.covered < COVERED
                if all(rle.iou(best.mask, other.mask) <= SAME for other in found):
                    found.append(best)
        return found

    def _offered(self, row: int, column: int, grid: int) -> Iterator[tuple[Thing, float]]:
        """SAM's candidates for the middle of a cell, and how far it trusts each."""
        points = PointSet(self.frame.middle(row, column, grid)[None], np.ones(1, np.int8), 1.0)
        (candidates,) = self.sam.predict(self.embedding, [points])
        scores = zip(candidates.rles, candidates.predicted_iou, candidates.stability, strict=True)
        for mask, predicted, stability in scores:
            trust = max(float(predicted), 0.0) * float(stability)
            yield Thing(mask, self.frame.covered(rle.decode(mask), grid)), trust


def _fit(covered: Float[np.ndarray, "g g"], share: Float[np.ndarray, "g g"]) -> float:
    """Soft IoU."""
    either = float(np.maximum(covered, share).sum())
    return float(np.minimum(covered, share).sum()) / either if either else 0.0
