"""Many samples' scores -> mIoU, oIoU, Prec@X, PointM, and where some mean nothing gIoU, N-acc and T-acc."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ppt.metrics.conventions import Conventions
from ppt.metrics.samples import Score

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
GROUPS = ("split", "source", "kind", "size", "length", "position", "distractors")
"""What scores are broken down by, where the samples name it."""


def miou(scores: Sequence[Score]) -> float:
    """Mean of the samples' IoU: every sample counts alike."""
    return math.fsum(score.iou for score in scores) / len(scores)


def oiou(scores: Sequence[Score]) -> float:
    """Sum of I over sum of U: pixels count alike, so large objects dominate. Without pixels: as `miou`."""
    union = sum(score.union for score in scores)
    return sum(score.intersection for score in scores) / union if union else miou(scores)


def reaches(score: Score, threshold: float, conventions: Conventions) -> bool:
    """Whether a sample's IoU reaches the threshold, or exceeds it, by convention."""
    return score.iou > threshold or (conventions.at_least and score.iou == threshold)


def precision_at(threshold: float, scores: Sequence[Score], conventions: Conventions) -> float:
    """Share of samples that reach the threshold."""
    return sum(reaches(score, threshold, conventions) for score in scores) / len(scores)


def pointm(scores: Sequence[Score]) -> float:
    """Share of samples whose point hit."""
    return sum(score.pointm for score in scores) / len(scores)


def generalised(scores: Sequence[Score]) -> dict[str, float]:
    """gIoU, N-acc and T-acc of GRES (Liu, Ding & Jiang, CVPR 2023); {} where every sample has a target.

    gIoU is the mean IoU in which a sample without a target counts 1 where the mask is empty and 0 where it
    is not, whatever the empty rule. N-acc: the share of those whose mask is empty. T-acc: the share of the
    others whose mask is not; left out where there are none. A missing prediction is no empty one: it counts 0
    in all three. So the paper has them; in its code (henghuiding/ReLA, evaluation/refer_evaluation.py) both
    denominators are one more, and T-acc counts TP in place of TN.
    """
    nothing = [score for score in scores if not score.target]
    something = [score for score in scores if score.target]
    if not nothing:
        return {}
    rejected = sum(score.empty for score in nothing)
    found = {
        "giou": (math.fsum(score.iou for score in something) + rejected) / len(scores),
        "n_acc": rejected / len(nothing),
    }
    if something:
        given = sum(not (score.empty or score.missing) for score in something)
        found["t_acc"] = given / len(something)
    return found


def summarise(scores: Sequence[Score], conventions: Conventions) -> dict[str, float]:
    """All metrics of these samples, how many they are (`n`) and how many had no mask (`missing`)."""
    if not scores:
        raise ValueError("there is nothing to summarise: no sample was scored")
    at = {f"prec@{threshold}": precision_at(threshold, scores, conventions) for threshold in THRESHOLDS}
    missing = sum(score.missing for score in scores)
    whole = {"miou": miou(scores), "oiou": oiou(scores), **at, "pointm": pointm(scores)}
    return {**whole, **generalised(scores), "n": len(scores), "missing": missing}


def breakdown(scores: Sequence[Score], group: str, conventions: Conventions) -> dict[str, dict[str, float]]:
    """`summarise` within each of a kind of group, by its name; samples that are in none are left out."""
    within: dict[str, list[Score]] = {}
    for score in scores:
        within.setdefault(score.groups.get(group, ""), []).append(score)
    return {name: summarise(within[name], conventions) for name in sorted(within) if name}


def report(scores: Sequence[Score], conventions: Conventions) -> Mapping[str, Any]:
    """One JSON object: labels, by_split, by_source, further by_* where the samples name them, conventions."""
    by = {f"by_{group}": breakdown(scores, group, conventions) for group in GROUPS}
    return {
        "labels": summarise(scores, conventions),
        **{name: found for name, found in by.items() if found or name in ("by_split", "by_source")},
        "conventions": conventions.describe(),
    }
