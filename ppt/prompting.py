"""Which of SAM's candidate masks is the one, and why.

SAM's own score prefers whatever has a clean outline: the whole background, or a part. So the candidates are
compared with the relevance map: the *agreement* of a mask is the correlation, over CLIP's grid, of how much
of each cell it covers with how relevant the cell is. It is 1 for a mask that is the map, falls for parts
(relevant cells left out) and for masks that spill (irrelevant cells covered), and has no threshold.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from ppt import rle
from ppt.types import MaskCandidates, RelevanceMap

ChoiceRule = Literal["agreement", "predicted_iou"]


@dataclass(frozen=True)
class Judgement:
    """One candidate seen against its map: agreement in [-1, 1], relevance inside and contrast in [0, 1] and
    [-1, 1].

    `relevance` is the mean of the min-max normalised map under the mask, `contrast` that mean less the mean
    outside; `area` the share of the image, in [0, 1].
    """

    agreement: float
    relevance: float
    contrast: float
    area: float


@dataclass(frozen=True)
class Choice:
    """The chosen candidate's index, or None; and the reasons in words that the report shows."""

    index: int | None
    reasons: tuple[str, ...]


def coverage(mask: Bool[np.ndarray, "h w"], grid: tuple[int, int]) -> Float32[np.ndarray, "gh gw"]:
    """The share of each grid cell that a mask covers, (gh, gw) float32 in [0, 1]."""
    return cv2.resize(mask.astype(np.float32), (grid[1], grid[0]), interpolation=cv2.INTER_AREA)


def judge(candidates: MaskCandidates, relevance: RelevanceMap) -> list[Judgement]:
    """Each candidate against the map, in order. A flat map, or a mask that covers nothing, agrees with 0."""
    stretched = relevance.normalised()
    rows, columns = relevance.values.shape
    judged: list[Judgement] = []
    for mask_rle in candidates.rles:
        area = rle.area(mask_rle) / (relevance.height * relevance.width)
        if stretched is None or area == 0:
            judged.append(Judgement(0.0, 0.0, 0.0, area))
            continue
        covered = coverage(rle.decode(mask_rle), (rows, columns)).astype(np.float64)
        values = stretched.values.astype(np.float64)
        inside = float((covered * values).sum() / max(covered.sum(), 1e-9))
        outside = float(((1 - covered) * values).sum() / max((1 - covered).sum(), 1e-9))
        judged.append(Judgement(_correlation(covered, values), inside, inside - outside, area))
    return judged


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return 0.0 if scale < 1e-12 else float(np.clip((a * b).sum() / scale, -1, 1))


def choose(
    candidates: MaskCandidates, judged: list[Judgement], rule: ChoiceRule, smallest: float, largest: float
) -> Choice:
    """The candidate to keep. Masks outside [smallest, largest] of the image's area are never taken.

    Under "agreement" the score is agreement x predicted IoU x stability, so a mask must fit the map and be
    one that SAM itself believes in; "predicted_iou" is SAM's own choice. Ties go to the first candidate.
    """
    allowed = [i for i, j in enumerate(judged) if smallest <= j.area <= largest]
    if not allowed:
        why = "empty" if all(j.area < smallest for j in judged) else "background_sized"
        return Choice(None, (f"no_candidate:{why}",))
    trust = np.clip(candidates.predicted_iou, 0, 1) * np.clip(candidates.stability, 0, 1)
    if rule == "predicted_iou":
        best = max(allowed, key=lambda i: float(candidates.predicted_iou[i]))
        return Choice(best, ("chosen:predicted_iou",))
    best = max(
        allowed, key=lambda i: judged[i].agreement * float(trust[i]) if judged[i].agreement > 0 else -1.0
    )
    if judged[best].agreement <= 0:
        return Choice(None, ("no_candidate:disagrees_with_relevance",))
    by_sam = max(allowed, key=lambda i: float(candidates.predicted_iou[i]))
    return Choice(best, ("chosen:agreement", *(("against_predicted_iou",) if by_sam != best else ())))
