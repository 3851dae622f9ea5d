"""What a person decided of pseudo-labels: read from review.jsonl, checked, and applied.

One line a decision, the last line of an id wins:

    {"id", "decision", "candidate", "segmentation", "note", "who", "when", "of"}

`decision` is one of `DECISIONS`. `candidate` counts from 0 and goes with "candidate", `segmentation` is COCO
RLE and goes with "mask". `of` names what was to choose from, as a label's does; a decision about other masks
than those there are now says nothing of these. All but id and decision may be left out.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from ppt import rle
from ppt.config import fingerprint
from ppt.rle import Rle, RleError
from ppt.types import PseudoLabel

Decided = Literal["keep", "drop", "candidate", "mask", "flag", "none"]
DECISIONS: tuple[Decided, ...] = get_args(Decided)
FILE_NAME = "review.jsonl"
"""In the folder of a run."""
_TEXTS = ("note", "who", "when", "of")
_LISTED = 5


class ReviewError(ValueError):
    """A review that cannot be read; the text names the lines."""


@dataclass(frozen=True)
class Decision:
    """keep: the label is right. drop: it is not to be used. candidate, mask: another mask is right. flag:
    somebody else is to look. none: an earlier decision is taken back.
    """

    id: str
    decision: Decided
    candidate: int | None = None
    segmentation: Rle | None = None
    note: str = ""
    who: str = ""
    when: str = ""
    of: str = ""

    def told(self) -> dict[str, str]:
        """What a label says of its review."""
        return {"decision": self.decision, "who": self.who, "when": self.when, "note": self.note}


def about(masks: Mapping[str, Any]) -> str:
    """What there is to choose from for a pair, by its row of the masks: the same where nothing in it is
    another.
    """
    return fingerprint(masks)[:16]


def read_review(data: bytes) -> dict[str, Decision]:
    """id -> its last decision; those taken back are left out. Raises ReviewError for lines that are none."""
    found: dict[str, Decision] = {}
    wrong: list[str] = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            decision = _decision(json.loads(line))
        except (ValueError, RecursionError) as error:
            wrong.append(f"line {number}: {error}")
            continue
        found[decision.id] = decision
    if wrong:
        more = f" and {len(wrong) - _LISTED} more" if len(wrong) > _LISTED else ""
        raise ReviewError("; ".join(wrong[:_LISTED]) + more)
    return {id: one for id, one in found.items() if one.decision != "none"}


def _decision(row: Any) -> Decision:
    if not isinstance(row, dict) or not isinstance(row.get("id"), str):
        raise ReviewError(f"expected an object with an id (got {str(row)[:80]})")
    kind, candidate, drawn = row.get("decision"), row.get("candidate"), row.get("segmentation")
    if kind not in DECISIONS:
        raise ReviewError(f"decision: expected one of {list(DECISIONS)} (got {kind!r})")
    whole = isinstance(candidate, int) and not isinstance(candidate, bool) and candidate >= 0
    if kind == "candidate" and not whole:
        raise ReviewError(f"candidate: expected a number from 0 on (got {candidate!r})")
    if kind == "mask" and not isinstance(drawn, dict):
        raise ReviewError(f"segmentation: expected COCO RLE (got {drawn!r})")
    texts = {name: row.get(name) or "" for name in _TEXTS}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise ReviewError(f"{name}: expected text (got {text!r})")
    try:
        mask = rle.from_json(drawn) if kind == "mask" else None
    except RleError as error:
        raise ReviewError(f"segmentation: {error}") from None
    return Decision(row["id"], kind, candidate if kind == "candidate" else None, mask, **texts)


def reviewed(
    label: PseudoLabel,
    decision: Decision,
    candidates: Sequence[tuple[Rle, Mapping[str, float]]],
    size: tuple[int, int],
) -> PseudoLabel:
    """The label as a person wants it: what is kept, picked or drawn has weight 1, what is dropped 0.

    candidates: mask and scores of each that SAM offered. size: (height, width) of the image. A decision that
    does not fit, as one about other masks, changes nothing and is told in `reasons`, as
    "review_passed_over:..."; what a person decided is told in `review`.
    """
    wrong = _misfit(label, decision, len(candidates), size)
    if wrong:
        return replace(label, reasons=(*label.reasons, f"review_passed_over:{wrong}"))
    told = replace(label, review=decision.told(), reasons=(*label.reasons, f"reviewed:{decision.decision}"))
    match decision.decision:
        case "keep":
            return replace(told, weight=1.0)
        case "drop":
            return replace(told, weight=0.0)
        case "candidate":
            assert decision.candidate is not None
            mask, scores = candidates[decision.candidate]
            return replace(told, segmentation=mask, scores={**label.scores, **scores}, weight=1.0)
        case "mask":
            return replace(told, segmentation=decision.segmentation, weight=1.0)
        case _:
            return told


def _misfit(label: PseudoLabel, decision: Decision, offered: int, size: tuple[int, int]) -> str:
    """Why a decision does not fit; "" where it does."""
    if decision.of and decision.of != label.of:
        return "it is about other masks than those there are now"
    if decision.decision == "keep" and label.segmentation is None:
        return "there is no mask to keep"
    if decision.candidate is not None and decision.candidate >= offered:
        return f"there is no candidate {decision.candidate + 1}, only {offered}"
    drawn = decision.segmentation
    if drawn is not None and (drawn.height, drawn.width) != size:
        return f"its mask is {drawn.height}x{drawn.width}, the image {size[0]}x{size[1]}"
    if drawn is not None and not rle.area(drawn):
        return "its mask is empty"
    return ""
