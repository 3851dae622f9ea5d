"""A lesson: which points the generator should have named for one sentence, and for the other things there.

Lessons are made of pseudo-masks and of mosaics, never of truth. Their points are stored as rows, what the
things cover as tensors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from ppt.points.examples import from_pixels
from ppt.points.generator import POSITIVE
from ppt.points.matching import target_classes
from ppt.points.targets import target_points
from ppt.prompting import coverage
from ppt.types import RelevanceMap

Thing = tuple[Float32[np.ndarray, "_ 2"], Int64[np.ndarray, " _"]]


@dataclass(frozen=True, eq=False)
class Lesson:
    """What is taught of one pair.

    things: (xy (p, 2) in [0, 1], classes (p,)) of each thing of the image that is known. covers: the share of
    each cell of CLIP's grid that each covers, in [0, 1]. meant: which of them the sentence means. complete:
    whether all things of the image are known. sure: how far the lesson is to be believed, in [0, 1]; it
    weighs every loss.
    """

    things: Sequence[Thing]
    covers: Float32[np.ndarray, "t h w"]
    meant: int = 0
    complete: bool = True
    sure: float = 1.0

    def positive(self) -> "Lesson":
        """The lesson less its negative points."""
        things = [(xy[classes == POSITIVE], classes[classes == POSITIVE]) for xy, classes in self.things]
        return replace(self, things=things)

    def to_row(self) -> dict[str, Any]:
        """The lesson as JSON, less `covers`."""
        points = [
            [[round(float(x), 5), round(float(y), 5), int(c)] for (x, y), c in zip(xy, classes, strict=True)]
            for xy, classes in self.things
        ]
        known = {"meant": self.meant, "complete": self.complete, "sure": round(self.sure, 6)}
        return {"things": points, **known}

    @classmethod
    def from_row(cls, row: Mapping[str, Any], covers: UInt8[np.ndarray, "t h w"]) -> "Lesson":
        """The inverse of `to_row` and `stored`."""
        things = [np.array(points, np.float64).reshape(-1, 3) for points in row["things"]]
        return cls(
            [(p[:, :2].astype(np.float32), p[:, 2].astype(np.int64)) for p in things],
            covers.astype(np.float32) / 255,
            row["meant"],
            row["complete"],
            row["sure"],
        )


def stored(covers: Float32[np.ndarray, "t h w"]) -> UInt8[np.ndarray, "t h w"]:
    """Shares in 255ths."""
    return np.rint(covers * 255).astype(np.uint8)


def make_lesson(
    masks: Sequence[Bool[np.ndarray, "h w"]],
    meant: int,
    relevance: RelevanceMap,
    positives: int,
    negatives: int,
    complete: bool = True,
    sure: float = 1.0,
) -> Lesson:
    """The lesson of a sentence that means thing number `meant` of those whose masks are given.

    relevance: its grid is the lesson's; of it the tempting negatives are taken. Raises ValueError for a mask
    without a pixel.
    """
    empty = [i for i, mask in enumerate(masks) if not mask.any()]
    if empty:
        raise ValueError(f"a lesson about things without a pixel: {empty}")
    size = relevance.height, relevance.width
    things: list[Thing] = []
    for i, mask in enumerate(masks):
        others = [other for j, other in enumerate(masks) if j != i]
        points = target_points(mask, relevance, positives, negatives, others)
        things.append((from_pixels(points.xy, size), target_classes(points)))
    covers = np.stack([coverage(mask, relevance.values.shape) for mask in masks])
    return Lesson(things, covers, meant, complete, sure)
