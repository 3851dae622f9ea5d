"""A click and a coarse mask -> a mask with SAM's borders: of what SAM offers for the click, the candidate
that covers the same cells.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ppt import rle
from ppt.rle import Rle
from ppt.segmenter.frames import Frame
from ppt.types import ImageEmbedding, PointSet, PromptableModel


@dataclass(frozen=True)
class Canvas:
    """SAM, what it made of an image, and how that image lies in the square that the segmenter reads."""

    sam: PromptableModel
    embedding: ImageEmbedding
    frame: Frame

    def draw(self, click: Float[np.ndarray, "g g"], share: Float[np.ndarray, "g g"]) -> Rle | None:
        """click: how much speaks for a click on each cell, any scale. share: of each cell in the mask, in
        [0, 1]. None where SAM offers nothing.

        SAM is asked for the middle of the best cell of the image. A candidate counts by its
        soft IoU with `share` on the cells, times its predicted IoU.
        """
        there = self.frame.there(len(click))
        inside = there > there.max() / 2  # a panorama fills no cell
        row, column = np.unravel_index(int(np.where(inside, click, -np.inf).argmax()), click.shape)
        middle = self.frame.middle(int(row), int(column), len(click))
        points = PointSet(middle[None], np.ones(1, np.int8), 1.0)
        (offered,) = self.sam.predict(self.embedding, [points])
        fits = [
            self._fit(mask, share) * max(float(sam), 0.0)
            for mask, sam in zip(offered.rles, offered.predicted_iou, strict=True)
        ]
        return offered.rles[int(np.argmax(fits))] if fits else None

    def _fit(self, mask: Rle, share: Float[np.ndarray, "g g"]) -> float:
        covered = self.frame.covered(rle.decode(mask), len(share))
        either = float(np.maximum(covered, share).sum())
        return float(np.minimum(covered, share).sum()) / either if either else 0.0
