"""One item -> what its card in the page shows: plain values for the template, numbers already in words."""

from collections.abc import Mapping
from typing import Any

from ppt import rle
from ppt.config import canonical_json
from ppt.report import figures, words
from ppt.report.figures import number
from ppt.report.gather import Item
from ppt.types import PointSet

_SYMBOLS = {1: "plus", 0: "minus", -1: "ignored"}
_LABELS = {1: "positive", 0: "negative", -1: "ignored"}
_FACTS = {
    "predicted_iou": "predicted IoU",
    "stability": "stability",
    "agreement": "agreement",
    "contrast": "contrast",
    "area": "area",
}
_RATIOS = (0.66, 2.0)
"""Narrowest and widest frame, width / height, for a picture; one that is beyond is shown whole within it."""


def card(
    item: Item, rank: int, photo: int, photo_problem: str | None, reviewable: bool = False
) -> dict[str, Any]:
    """The card of `item`; `photo` is the number of its photograph in the page, which may have a problem.
    reviewable: with buttons to decide about its label.
    """
    record, pair = item.record, item.record.pair
    size = _point_size(item)
    hidden = [f"The photograph cannot be shown: {photo_problem}"] if photo_problem else []
    return {
        "rank": rank,
        "reviewable": reviewable,
        "photo": photo,
        "id": pair.id,
        "text": pair.text,
        "image": pair.image,
        "split": pair.split,
        "source": pair.source,
        "source_words": words.plain(pair.source),
        "flags": [words.plain(flag) for flag in record.flags],
        "width": record.width,
        "height": record.height,
        "ratio": f"{_ratio(item):.4f}",
        "view_box": f"-0.5 -0.5 {record.width} {record.height}",
        "problems": [*item.failures, *hidden],
        "reasons": words.sentences((*item.doubts, *item.reasons)),
        "status": status(item),
        "band": item.band,
        **_badges(item),
        **_map(item),
        "has_points": item.points is not None,
        "points": _points(item.points, size) if item.points else [],
        "point_facts": _point_facts(item.points) if item.points else [],
        "point_size": number(size),
        "chosen": item.chosen,
        "paths": [figures.mask_path(candidate.mask) for candidate in item.candidates],
        "candidates": [_candidate(item, index) for index in range(len(item.candidates))],
        "truth": figures.mask_path(item.truth) if item.truth else "",
        **_predicted(item),
        **_other(item),
    }


def status(item: Item) -> str:
    """In one word what became of the item, for filtering."""
    if item.weight is None:
        return "failed" if item.failures else "not labelled"
    if not item.labelled:
        return "no mask"
    return "used" if item.weight > 0 else "excluded"


def _ratio(item: Item) -> float:
    """Width / height of the frames of an item's pictures."""
    return min(max(item.record.width / item.record.height, _RATIOS[0]), _RATIOS[1])


def _badges(item: Item) -> dict[str, Any]:
    weight, iou, worth = item.weight, item.iou, item.worth
    return {
        "quality": None if item.quality is None else f"{item.quality:.2f}",
        "quality_percent": number(100 * (item.quality or 0.0)),
        "sort_worth": -1 if worth is None else worth,
        "weight": "–" if weight is None else f"{weight:.2f}",
        "weight_percent": number(100 * (weight or 0.0)),
        "sort_weight": -1 if weight is None else weight,
        "iou": None if iou is None else f"{iou:.2f}",
        "iou_percent": number(100 * (iou or 0.0)),
        "sort_iou": "" if iou is None else iou,
        "surprise": "" if iou is None or worth is None else round(worth - iou, 6),
    }


def _map(item: Item) -> dict[str, Any]:
    if item.relevance is None:
        return {"has_map": False}
    values, heat = item.relevance.values, figures.heat_uri(item.relevance)
    facts = [("range", f"{values.min():.3f} to {values.max():.3f}")] if heat else [("flat", "no evidence")]
    if heat and "peak" in item.scores:
        facts.append(("peak", f"{item.scores['peak']:.1f} σ"))
    return {"has_map": True, "heat": heat, "map_facts": facts}


def _candidate(item: Item, index: int) -> dict[str, Any]:
    candidate = item.candidates[index]
    scores: Mapping[str, float] = candidate.scores
    facts = [(word, _shown(name, scores[name])) for name, word in _FACTS.items() if name in scores]
    if item.truth is not None:
        facts.append(("IoU with truth", f"{rle.iou(candidate.mask, item.truth):.3f}"))
    return {"chosen": index == item.chosen, "facts": facts}


def _predicted(item: Item) -> dict[str, Any]:
    if item.predicted is None:
        return {"has_prediction": False, "prediction": ""}
    mask, facts = item.predicted.mask, [("sure", f"{item.predicted.sure:.2f}")]
    if mask is None:
        facts = [("none", "")]
    if item.truth is not None:
        facts.append(("IoU with truth", f"{rle.iou(mask, item.truth) if mask else 0.0:.3f}"))
    path = figures.mask_path(mask) if mask else ""
    stored = canonical_json(mask.to_json()) if mask else ""
    told = {"prediction_facts": facts, "prediction_rle": stored}
    return {"has_prediction": True, "prediction": path, **told}


def _other(item: Item) -> dict[str, Any]:
    other = item.other
    if other is None:
        return {"has_other": False, "other": ""}
    known = {"weight": other.weight, "quality": other.quality, "IoU with truth": other.iou}
    facts = [(name, f"{value:.3f}") for name, value in known.items() if value is not None]
    if other.nearness is not None:
        facts.append(("IoU with this run", f"{other.nearness:.3f}"))
    mask = figures.mask_path(other.mask) if other.mask else ""
    return {"has_other": True, "other": mask, "other_facts": facts or [("not labelled", "")]}


def _shown(name: str, score: float) -> str:
    return f"{100 * score:.1f} %" if name == "area" else f"{score:.3f}"


def _point_size(item: Item) -> float:
    """Side of a point's symbol in original pixels: the same on every card to the eye, smaller where many."""
    widest = max(item.record.width, item.record.height * _ratio(item))
    many = item.points is not None and len(item.points.labels) > 12
    return widest * (0.06 if many else 0.085)


def _points(points: PointSet, size: float) -> list[dict[str, str]]:
    """Ignored points first, positive last and so on top; x and y are the symbol's upper left corner."""
    drawn = sorted(zip(points.labels.tolist(), points.xy.tolist(), strict=True), key=lambda point: point[0])
    return [
        {"symbol": _SYMBOLS[label], "x": number(x - size / 2), "y": number(y - size / 2)}
        for label, (x, y) in drawn
    ]


def _point_facts(points: PointSet) -> list[tuple[str, str]]:
    counts = ((name, int((points.labels == label).sum())) for label, name in _LABELS.items())
    return [(name, str(count)) for name, count in counts if count] or [("none", "")]
