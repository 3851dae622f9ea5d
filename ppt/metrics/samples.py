"""One sentence's score: what is in both masks and in either, and whether the point hit."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool

from ppt import rle
from ppt.metrics.conventions import Conventions
from ppt.rle import Rle
from ppt.types import PointSet


@dataclass(frozen=True, eq=False)
class Sample:
    """One sentence: its true mask, the predicted mask and points (None where there are none), its groups.

    A prediction without a pixel says that nothing is meant; None says nothing at all. image: what stands for
    its image, "" where that is not known. more: further groups by name, as `groups.of` has them.
    """

    id: str
    truth: Rle
    prediction: Rle | None
    points: PointSet | None
    split: str = ""
    source: str = ""
    kind: str = ""
    image: str = ""
    more: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Score:
    """What one sample adds: pixels in both masks and in either, IoU in [0, 1], whether the point hit; whether
    there is no prediction; whether something is meant, and whether a mask was given that is empty.
    """

    id: str
    intersection: int
    union: int
    iou: float
    pointm: bool
    missing: bool
    target: bool = True
    empty: bool = False
    image: str = ""
    groups: Mapping[str, str] = field(default_factory=dict[str, str])

    def to_json(self) -> dict[str, Any]:
        """One flat row: the groups stand beside the rest."""
        row = asdict(self)
        groups = row.pop("groups")
        return row | groups

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Score":
        own = {one.name for one in fields(cls)} - {"groups"}
        groups = {name: value for name, value in row.items() if name not in own}
        return cls(**{name: row[name] for name in own}, groups=groups)


def score(sample: Sample, conventions: Conventions) -> Score:
    """One sample's score. Raises ValueError naming the id when the two masks differ in size."""
    truth, prediction = sample.truth, sample.prediction
    if prediction is not None and (prediction.height, prediction.width) != (truth.height, truth.width):
        sizes = f"{prediction.height}x{prediction.width}, its truth {truth.height}x{truth.width}"
        raise ValueError(f"{sample.id!r}: the predicted mask is {sizes}; both must be in original pixels")
    intersection, union = _pixels(prediction, truth, conventions)
    without_pixels = 0.0 if prediction is None else conventions.of_empty
    return Score(
        sample.id,
        intersection,
        union,
        intersection / union if union else without_pixels,
        pointm=sample.points is not None and point_hits(sample.points, truth),
        missing=prediction is None,
        target=rle.area(truth) > 0,
        empty=prediction is not None and rle.area(prediction) == 0,
        image=sample.image,
        groups={"split": sample.split, "source": sample.source, "kind": sample.kind, **sample.more},
    )


def point_hits(points: PointSet, truth: Rle) -> bool:
    """Whether the first positive point, which is the most confident, lies on a true pixel of the original."""
    positive = points.xy[points.labels == 1]
    if len(positive) == 0:
        return False
    x, y = (math.floor(value + 0.5) for value in positive[0].tolist())  # pixel centres lie at integers
    inside = 0 <= x < truth.width and 0 <= y < truth.height
    return inside and bool(rle.decode(truth)[y, x])


def squashed(mask: Rle, side: int) -> Bool[np.ndarray, "side side"]:
    """A mask resized to a square, whatever its shape, by the nearest pixel.

    So LAVT's loader (yz93/LAVT-RIS, transforms.py: PIL's nearest neighbour, of which cv2's "exact" is the
    like) has the truth. Its network's answer is made at that size; a mask that is made in original pixels is
    resized as the truth is, so that equal masks stay equal.
    """
    pixels = rle.decode(mask).astype(np.uint8)
    return cv2.resize(pixels, (side, side), interpolation=cv2.INTER_NEAREST_EXACT).astype(bool)


def _pixels(prediction: Rle | None, truth: Rle, conventions: Conventions) -> tuple[int, int]:
    """(pixels in both, pixels in either) at the resolution of the conventions."""
    if conventions.resolution == "native":
        return (0, rle.area(truth)) if prediction is None else rle.intersection_union(prediction, truth)
    true = squashed(truth, conventions.resolution)
    if prediction is None:
        return 0, int(true.sum())
    found = squashed(prediction, conventions.resolution)
    return int((found & true).sum()), int((found | true).sum())
