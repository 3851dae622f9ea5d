"""Chosen masks -> pseudo-labels: a weight in [0, 1], the scores behind it, and reasons in words.

The weight is the geometric mean of five terms, each in [0, 1] and each known without truth: SAM's predicted
IoU, the mask's stability, its agreement with the relevance map, how far the map's peak stands out, and how
sure the points are of their thing, which those read off a map always are. A label with a reason to be
excluded keeps its mask for inspection and has weight 0.
"""

import heapq
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ppt import rle
from ppt.rle import Rle
from ppt.types import PseudoLabel

APART = 0.1
"""IoU below which two masks show two things."""
LISTED = 20
"""Labels named, at most, that have the same mask as one."""
FULL_CONTRAST = 3.0
"""Peak of the map in standard deviations above its mean at which a map counts as fully clear."""


def weigh(scores: dict[str, float]) -> float:
    """The weight of a label from its scores; 0 as soon as one term is 0."""
    terms = (
        scores["predicted_iou"],
        scores["stability"],
        scores["agreement"],
        scores["peak"] / FULL_CONTRAST,
        scores["sure"],
    )
    clipped = np.clip(np.array(terms, dtype=np.float64), 0, 1)
    return round(float(clipped.prod() ** (1 / len(clipped))), 6)


def exclusions(scores: dict[str, float], least_stability: float, least_agreement: float) -> tuple[str, ...]:
    """Why a mask must not be trained on, in words: "excluded:stability 0.41 < 0.5"; empty when nothing is
    wrong.
    """
    checks = (("stability", least_stability), ("agreement", least_agreement))
    return tuple(
        f"excluded:{name} {scores[name]:.2f} < {least}" for name, least in checks if scores[name] < least
    )


def label(
    id: str,
    image: str,
    text: str,
    mask: Rle | None,
    scores: dict[str, float],
    reasons: Sequence[str],
    least_stability: float,
    least_agreement: float,
) -> PseudoLabel:
    """One pseudo-label from a chosen mask, or from none (then the reasons say why, and the weight is 0)."""
    if mask is None:
        return PseudoLabel(id, image, text, None, dict(scores), 0.0, tuple(reasons))
    excluded = exclusions(scores, least_stability, least_agreement)
    weight = 0.0 if excluded else weigh(scores)
    return PseudoLabel(id, image, text, mask, dict(scores), weight, (*reasons, *excluded))


def believed(label: PseudoLabel, weight: float) -> PseudoLabel:
    """The label with another weight in place of its own, 0 where it is not to teach; one that is excluded, or
    has no mask, stays as it is.
    """
    if not label.weight:
        return label
    why = f"believed:{weight:.2f}" if weight else "excluded:quality in the band drop"
    return replace(label, weight=weight, reasons=(*label.reasons, why))


def rival(mask: Rle, offered: Sequence[tuple[Rle, float]]) -> float:
    """How well something else fits the words: the highest agreement with the relevance map among SAM's
    candidates (mask, agreement) that show another thing than `mask`; 0 where there is none.
    """
    others = (agreement for other, agreement in offered if rle.iou(mask, other) < APART)
    return max([0.0, *others])


def edge(mask: Rle) -> float:
    """The share of the image's outermost pixels that the mask covers, in [0, 1]: much, where it is ground."""
    pixels = rle.decode(mask)
    pixels[1:-1, 1:-1] = False
    height, width = pixels.shape
    outermost = height * width - max(0, height - 2) * max(0, width - 2)
    return float(pixels.sum()) / outermost


def conflicts(labels: Sequence[PseudoLabel], overlap: float) -> dict[str, tuple[str, ...]]:
    """Labels of one image whose masks overlap by IoU >= `overlap` although their sentences differ.

    Returns id -> reasons ("same_mask_as:ID", for `LISTED` of them, and "same_mask_as_others:N" for the rest);
    paraphrases of one object are allowed to meet, so this is a remark for the person who looks, and not an
    exclusion. Each pair of distinct masks is compared once, however many sentences have them.
    """
    sharing: dict[Rle, list[int]] = {}
    for place, label in enumerate(labels):
        if label.segmentation is not None:
            sharing.setdefault(label.segmentation, []).append(place)
    saying = Counter((label.segmentation, label.text) for label in labels)
    alike = _alike(list(sharing), overlap)
    found: dict[str, tuple[str, ...]] = {}
    for label in labels:
        near = alike.get(label.segmentation, ()) if label.segmentation is not None else ()
        count = sum(len(sharing[mask]) - saying[mask, label.text] for mask in near)
        if not count:
            continue
        places = heapq.merge(*(sharing[mask] for mask in near))
        others = (labels[place].id for place in places if labels[place].text != label.text)
        named = [f"same_mask_as:{other}" for other in itertools.islice(others, LISTED)]
        rest = [f"same_mask_as_others:{count - LISTED}"] if count > LISTED else []
        found[label.id] = (*named, *rest)
    return found


def _alike(masks: Sequence[Rle], overlap: float) -> dict[Rle, list[Rle]]:
    """For each of some distinct masks those with IoU >= `overlap`, itself included where it is not empty."""
    areas = np.array([rle.area(mask) for mask in masks], np.float64)
    boxes = np.array([rle.box(mask) for mask in masks], np.float64).reshape(-1, 4)
    found: dict[Rle, list[Rle]] = {mask: [] for mask in masks}
    for i, mask in enumerate(masks):
        low, high = np.maximum(boxes[i, :2], boxes[i:, :2]), np.minimum(boxes[i, 2:], boxes[i:, 2:])
        # What both cover is in both boxes, and no more than the smaller: no IoU is above this.
        both = np.minimum(np.clip(high - low, 0, None).prod(1), np.minimum(areas[i], areas[i:]))
        possible = both >= overlap * np.maximum(areas[i], areas[i:])
        for j in (i + np.flatnonzero(possible)).tolist():
            if rle.iou(mask, masks[j]) >= overlap:
                found[mask].append(masks[j])
                if j != i:
                    found[masks[j]].append(mask)
    return found
