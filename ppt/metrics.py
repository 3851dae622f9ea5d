"""How good are masks against the truth: mIoU, oIoU, Prec@X and PointM, with every convention named.

A sample is one sentence; I and U are the pixels in both masks and in either; IoU = I / U. Without a
prediction IoU is 0 and U the truth's area: failures stay in all denominators. Scores are fractions in [0, 1].
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ppt import rle
from ppt.rle import Rle
from ppt.types import PointSet

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Conventions:
    """The seven switches in which published evaluators differ, and where this one stands on each."""

    empty: Literal["zero", "one"]  # IoU of an empty mask with an empty truth
    at_least: bool  # Prec@X counts IoU >= X rather than > X
    sample_unit: Literal["sentence"] = "sentence"
    sentence_field: Literal["raw text"] = "raw text"
    resolution: Literal["native"] = "native"
    binarisation: Literal["logits > 0"] = "logits > 0"
    overlap: Literal["> 0"] = "> 0"

    def describe(self) -> dict[str, str]:
        """What to print with every score."""
        return {
            "scale": "fractions in [0, 1]",
            "sample unit": f"one sample per {self.sample_unit}",
            "sentence field": self.sentence_field,
            "resolution": f"{self.resolution}: masks are compared in original pixels",
            "binarisation": self.binarisation,
            "empty rule": f"IoU of an empty mask with an empty truth is {self.of_empty:g}",
            "Prec@X": f"share of samples with IoU {'>=' if self.at_least else '>'} X",
            "overlap rule": f"polygons of one object: pixels covered {self.overlap} times are true",
            "missing": "a missing prediction has IoU 0 and its truth's area counts in oIoU's union",
            "PointM": "share of samples whose first positive point lies in the truth; none is a miss",
        }

    def line(self) -> str:
        """The seven switches in a few words, to stand beside scores in a terminal."""
        switches = (
            f"per {self.sample_unit}",
            self.sentence_field,
            f"{self.resolution} resolution",
            self.binarisation,
            f"empty = {self.of_empty:g}",
            f"IoU {'>=' if self.at_least else '>'} X",
            f"overlap {self.overlap}",
        )
        return ", ".join(switches)

    @property
    def of_empty(self) -> float:
        """IoU of two empty masks."""
        return 1.0 if self.empty == "one" else 0.0


@dataclass(frozen=True, eq=False)
class Sample:
    """One sentence: its true mask, the predicted mask and points (None where there are none), its groups."""

    id: str
    truth: Rle
    prediction: Rle | None
    points: PointSet | None
    split: str = ""
    source: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Score:
    """What one sample adds: pixels in both masks and in either, IoU in [0, 1], whether the point hit."""

    id: str
    intersection: int
    union: int
    iou: float
    pointm: bool
    missing: bool
    split: str = ""
    source: str = ""
    kind: str = ""


def score(sample: Sample, conventions: Conventions) -> Score:
    """One sample's score. Raises ValueError naming the id when the two masks differ in size."""
    truth, prediction = sample.truth, sample.prediction
    if prediction is None:
        intersection, union = 0, rle.area(truth)
        iou = 0.0
    else:
        if (prediction.height, prediction.width) != (truth.height, truth.width):
            sizes = f"{prediction.height}x{prediction.width}, its truth {truth.height}x{truth.width}"
            raise ValueError(f"{sample.id!r}: the predicted mask is {sizes}; both must be in original pixels")
        intersection, union = rle.intersection_union(prediction, truth)
        iou = intersection / union if union else conventions.of_empty
    hit = sample.points is not None and point_hits(sample.points, truth)
    missing = prediction is None
    groups = (sample.split, sample.source, sample.kind)
    return Score(sample.id, intersection, union, iou, hit, missing, *groups)


def point_hits(points: PointSet, truth: Rle) -> bool:
    """Whether the first positive point, which is the most confident, lies on a true pixel."""
    positive = points.xy[points.labels == 1]
    if len(positive) == 0:
        return False
    x, y = (math.floor(value + 0.5) for value in positive[0].tolist())  # pixel centres lie at integers
    inside = 0 <= x < truth.width and 0 <= y < truth.height
    return inside and bool(rle.decode(truth)[y, x])


def miou(scores: Sequence[Score]) -> float:
    """Mean of the samples' IoU: every sample counts alike."""
    return math.fsum(score.iou for score in scores) / len(scores)


def oiou(scores: Sequence[Score]) -> float:
    """Sum of I over sum of U: pixels count alike, so large objects dominate. Without pixels: as `miou`."""
    union = sum(score.union for score in scores)
    return sum(score.intersection for score in scores) / union if union else miou(scores)


def precision_at(threshold: float, scores: Sequence[Score], conventions: Conventions) -> float:
    """Share of samples whose IoU reaches the threshold, or exceeds it, by convention."""
    ious = (score.iou for score in scores)
    return sum(iou > threshold or (conventions.at_least and iou == threshold) for iou in ious) / len(scores)


def pointm(scores: Sequence[Score]) -> float:
    """Share of samples whose point hit."""
    return sum(score.pointm for score in scores) / len(scores)


def summarise(scores: Sequence[Score], conventions: Conventions) -> dict[str, float]:
    """All metrics of these samples, how many they are (`n`) and how many had no mask (`missing`)."""
    if not scores:
        raise ValueError("there is nothing to summarise: no sample was scored")
    at = {f"prec@{threshold}": precision_at(threshold, scores, conventions) for threshold in THRESHOLDS}
    missing = sum(score.missing for score in scores)
    whole = {"miou": miou(scores), "oiou": oiou(scores), **at, "pointm": pointm(scores)}
    return {**whole, "n": len(scores), "missing": missing}


def breakdown(
    scores: Sequence[Score], group: Callable[[Score], str], conventions: Conventions
) -> dict[str, dict[str, float]]:
    """`summarise` within each group, by the group's name; samples whose group is "" are left out."""
    names = sorted({group(score) for score in scores} - {""})
    return {
        name: summarise([score for score in scores if group(score) == name], conventions) for name in names
    }


def report(scores: Sequence[Score], conventions: Conventions) -> Mapping[str, Any]:
    """One JSON object: labels, by_split, by_source, by_kind (where kinds are given) and conventions."""
    kinds = breakdown(scores, lambda score: score.kind, conventions)
    return {
        "labels": summarise(scores, conventions),
        "by_split": breakdown(scores, lambda score: score.split, conventions),
        "by_source": breakdown(scores, lambda score: score.source, conventions),
        **({"by_kind": kinds} if kinds else {}),
        "conventions": conventions.describe(),
    }
