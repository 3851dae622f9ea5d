"""The user's TRUTH file: JSON lines {"id", "segmentation"}: a COCO RLE or polygons of a pair's true mask; and
"distractors", a list of the same for the image's other things of the same name, where they are known.
"""

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppt import rle
from ppt.records import jsonlines
from ppt.records.jsonlines import RowError, text_id
from ppt.rle import Rle
from ppt.types import Truth


class TruthError(ValueError):
    """A file that holds no truth: unreadable, empty, or without one line of id and segmentation."""


@dataclass(frozen=True)
class Refused:
    """A row that cannot be used: `error` is a short code, `id` is "" where it could not be read."""

    line: int
    id: str
    error: str
    message: str


def read(
    path: Path, sizes: Mapping[str, tuple[int, int] | None], left_out: Container[str] = ()
) -> tuple[list[Truth], list[Refused]]:
    """The true masks of the ids in `sizes`, sorted by id, and the rows that were refused, in file order.

    `sizes` gives each image as (height, width), or None where it could not be opened; ids in `left_out` are
    passed over. Polygons on an image that could not be opened are drawn on the smallest canvas that holds
    them, so that their area counts in every denominator. Refused are masks of another size, unknown ids,
    and ids used twice. Raises TruthError before any row.
    """
    try:
        rows = list(jsonlines.parse(jsonlines.read_bytes(path)))
    except ValueError as error:
        raise TruthError(f"truth: {error}") from error
    if not any(isinstance(row, dict) and {"id", "segmentation"} <= row.keys() for _, row in rows):
        raise TruthError(f"truth: {path}: no line is a JSON object with id and segmentation")
    found: dict[str, Truth] = {}
    refused: list[Refused] = []
    for line, row in rows:
        identity = ""
        try:
            if isinstance(row, RowError):
                raise row
            identity = text_id(row.get("id"))
            if identity in left_out:
                continue
            if identity in found:
                raise RowError("duplicate_id", f"id {identity!r:.80} has a mask already")
            if identity not in sizes:
                raise RowError("unknown_id", f"no pair has the id {identity!r:.80}")
            segmentation = row.get("segmentation")
            height, width = sizes[identity] or _own_canvas(segmentation)
            mask = rle.from_json(segmentation, height, width)
            found[identity] = Truth(identity, mask, _distractors(row.get("distractors"), mask))
        except (RowError, rle.RleError) as error:
            code = error.error if isinstance(error, RowError) else "bad_mask"
            refused.append(Refused(line, identity, code, f"line {line}: {error}"))
    return [found[key] for key in sorted(found)], refused


def _distractors(value: Any, mask: Rle) -> tuple[Rle, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise RowError("bad_mask", f"distractors must be a list of masks, got {value!r:.80}")
    return tuple(rle.from_json(one, mask.height, mask.width) for one in value)


def _own_canvas(segmentation: Any) -> tuple[int, int] | tuple[None, None]:
    """(height, width) that polygons need; none where there is none, and the mask's own check says why."""
    if not isinstance(segmentation, list):
        return None, None
    try:
        corners = np.concatenate([np.asarray(polygon, float).reshape(-1, 2) for polygon in segmentation])
        width, height = (max(1, math.ceil(side)) for side in corners.max(0))
    except (TypeError, ValueError, OverflowError):
        return None, None
    return height, width
