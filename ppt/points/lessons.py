"""A lesson: which points the generator should have named for one sentence, and for the other things there.

Lessons are made of pseudo-masks and of mosaics, never of truth, and are stored as rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from ppt.points.examples import from_pixels
from ppt.points.matching import target_classes
from ppt.points.targets import target_points
from ppt.types import PointSet, RelevanceMap

Thing = tuple[Float32[np.ndarray, "p 2"], Int64[np.ndarray, " p"]]


@dataclass(frozen=True, eq=False)
class Lesson:
    """What is taught of one pair: the points of each thing of the image, the one the sentence means first.

    things: (xy (p, 2) in [0, 1], classes (p,)) of each. sure: how far the lesson is to be believed, in
    [0, 1]; it weighs every loss.
    """

    things: Sequence[Thing]
    sure: float = 1.0

    def to_json(self) -> dict[str, Any]:
        points = [
            [[round(float(x), 5), round(float(y), 5), int(c)] for (x, y), c in zip(xy, classes, strict=True)]
            for xy, classes in self.things
        ]
        return {"things": points, "sure": round(self.sure, 6)}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Lesson":
        things = [np.array(points, np.float64).reshape(-1, 3) for points in row["things"]]
        return cls([(p[:, :2].astype(np.float32), p[:, 2].astype(np.int64)) for p in things], row["sure"])


def make_lesson(
    masks: Sequence[Bool[np.ndarray, "h w"]],
    meant: int,
    relevance: RelevanceMap,
    positives: int,
    negatives: int,
    sure: float = 1.0,
) -> Lesson:
    """The lesson of a sentence that means thing number `meant` of those whose masks are given.

    relevance: of the sentence; of it the tempting negatives are taken. Things without a pixel are left out;
    raises ValueError where the one that is meant has none.
    """
    if not masks[meant].any():
        raise ValueError(f"a lesson about thing {meant}, whose mask is empty")
    order = [meant, *(i for i, mask in enumerate(masks) if i != meant and mask.any())]
    size = relevance.height, relevance.width
    things: list[Thing] = []
    for i in order:
        others = [masks[j] for j in order if j != i]
        points: PointSet = target_points(masks[i], relevance, positives, negatives, others)
        things.append((from_pixels(points.xy, size), target_classes(points)))
    return Lesson(things, sure)
