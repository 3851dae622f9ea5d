"""Where a person reviews a run: the page as it is served, decisions as they are made, masks at a click."""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import Any

import numpy as np

from ppt import rle
from ppt.durable import json_lines
from ppt.places import Place
from ppt.report import figures, page
from ppt.report.gather import ReportError, Run
from ppt.report.journal import Journal
from ppt.review import DECISIONS
from ppt.rle import Rle, RleError
from ppt.types import MaskCandidates, PointSet, Record

Ask = Callable[[Record, PointSet], MaskCandidates]
"""SAM's candidates for points in the image of a record; raises ValueError where the image cannot be had."""
_FIELDS = ("id", "decision", "candidate", "segmentation", "points", "note", "who")
_LONGEST = {"note": 2000, "who": 200}
_MOST_POINTS = 200


class Refused(ValueError):  # noqa: N818 -- the answer is the name
    """A request that makes no sense; the text says why."""


@dataclass(frozen=True)
class _Offer:
    """What the run made of one pair: its record, its points as stored, and how many candidates there are."""

    record: Record
    points: list[list[float | int]]
    candidates: int


class Desk:
    """Answers what the page asks. Decisions come one at a time, and so do questions to SAM.

    ask: None where there is no SAM. Raises ReportError where the run has no masks and labels to review.
    """

    def __init__(self, run: Run, images_root: Place | None, journal: Journal, ask: Ask | None) -> None:
        if not run.reviewable:
            raise ReportError(
                f"{run.folder} holds no finished masks and labels, so there is nothing to review"
            )
        self._run = run
        self._images_root = images_root
        self._journal = journal
        self._ask = ask
        self._records = {item.id: item.record for item in run.items}
        masks = run.stages["masks"]
        self._shard_of = {row["id"]: key for key in masks.keys for row in masks.rows(key)}
        self._rows = functools.lru_cache(maxsize=8)(lambda key: {row["id"]: row for row in masks.rows(key)})
        self._writing, self._asking = Lock(), Lock()

    @property
    def files(self) -> Place:
        """The folder of what lies beside the page."""
        return page.files_of(self._run.folder / page.FILE_NAME)

    def page(self, who: str = "", limit: int = page.LIMIT) -> bytes:
        """The page, which talks to this desk; its sidecars are written. who: the name it proposes. limit: as
        `build_report` has it.
        """
        live = {"ask": self._ask is not None, "who": who}
        return page.render(self._run, self._run.folder / page.FILE_NAME, self._images_root, limit, live)

    def decisions(self) -> bytes:
        """The last decision on each item, as lines of review.jsonl."""
        with self._writing:
            return json_lines([*self._journal.last.values()])

    def decide(self, row: Any) -> dict[str, Any]:
        """Check a decision and add it to review.jsonl, with the time; what was written. Raises Refused for
        one that makes no sense, OSError where it cannot be written.
        """
        decision = self._checked(row)
        with self._writing:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            decision |= {"when": now, "of": self._journal.of.get(decision["id"], "")}
            self._journal.append(decision)
        return decision

    def masks(self, question: Any) -> dict[str, Any]:
        """SAM's masks for points of an item, best first: {"points", "masks": [{"segmentation", "path",
        "predicted_iou", "stability"}]}. Without points (null) the item's own are told, and SAM gets to know
        the image. Raises Refused.
        """
        offer = self._offer(question)
        if self._ask is None:
            raise Refused("there is no SAM here to ask")
        given = question.get("points")
        points = _points(offer.points if given is None else given, offer.record)
        if not any(label == 1 for *_, label in points):
            return {"points": points, "masks": []}
        with self._asking:
            try:
                found = self._ask(offer.record, PointSet.from_rows(points))
            except (ValueError, FloatingPointError) as error:
                raise Refused(str(error)) from error
        worth = found.predicted_iou * found.stability
        best = [index for index in np.argsort(-worth, kind="stable").tolist() if rle.area(found.rles[index])]
        return {"points": points, "masks": [_mask(found, index) for index in best]}

    def _checked(self, row: Any) -> dict[str, Any]:
        offer = self._offer(row)
        told = {name: row.get(name) for name in _FIELDS}
        if told["decision"] not in DECISIONS:
            raise Refused(f"decision: expected one of {', '.join(DECISIONS)}, got {told['decision']!r}")
        for name, longest in _LONGEST.items():
            text = told[name] if told[name] is not None else ""
            if not isinstance(text, str) or len(text) > longest or re.search("[\ud800-\udfff]", text):
                raise Refused(f"{name}: expected text of at most {longest} characters")
            told[name] = text
        return told | self._chosen(told, offer)

    def _chosen(self, told: dict[str, Any], offer: _Offer) -> dict[str, Any]:
        """What a decision for another mask says of it; nothing for the others."""
        nothing = {"candidate": None, "segmentation": None, "points": None}
        if told["decision"] == "candidate":
            number = told["candidate"]
            if type(number) is not int or not 0 <= number < offer.candidates:
                raise Refused(f"candidate: expected 0 to {offer.candidates - 1}, got {number!r}")
            return nothing | {"candidate": number}
        if told["decision"] == "mask":
            record = offer.record
            try:
                mask = rle.from_json(told["segmentation"], record.height, record.width)
            except RleError as error:
                raise Refused(f"segmentation: {error}") from error
            points = None if told["points"] is None else _points(told["points"], record)
            return nothing | {"segmentation": mask.to_json(), "points": points}
        return nothing

    def _offer(self, question: Any) -> _Offer:
        id = question.get("id") if isinstance(question, dict) else None
        if not isinstance(id, str) or id not in self._records:
            raise Refused(f"id: {id!r} is not an item of this run")
        row = self._rows(self._shard_of[id])[id] if id in self._shard_of else {"points": [], "candidates": []}
        return _Offer(self._records[id], row["points"], len(row["candidates"]))


def _points(given: Any, record: Record) -> list[list[float | int]]:
    """[[x, y, label], ...] in original pixels, checked."""
    if not isinstance(given, list) or len(given) > _MOST_POINTS:
        raise Refused(f"points: expected a list of at most {_MOST_POINTS}")
    for point in given:
        if not isinstance(point, list) or len(point) != 3 or type(point[2]) is not int:
            raise Refused(f"points: expected [x, y, label], got {point!r}")
        for value, side in zip(point[:2], (record.width, record.height), strict=True):
            if type(value) not in (int, float) or not -0.5 <= value <= side - 0.5:
                raise Refused(f"points: {point!r} lies outside of {record.width} x {record.height} pixels")
        if point[2] not in (1, 0, -1):
            raise Refused(f"points: expected label 1, 0 or -1, got {point[2]}")
    return [[round(x, 2), round(y, 2), label] for x, y, label in given]


def _mask(found: MaskCandidates, index: int) -> dict[str, Any]:
    mask: Rle = found.rles[index]
    return {
        "segmentation": mask.to_json(),
        "path": figures.mask_path(mask),
        "predicted_iou": round(float(found.predicted_iou[index]), 4),
        "stability": round(float(found.stability[index]), 4),
    }
