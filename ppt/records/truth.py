"""The truth, row by row: the user's TRUTH file, JSON lines {"id", "segmentation"}, and the same of data sets.

A segmentation is a COCO RLE or polygons of a pair's true mask; "distractors" is a list of the same for the
image's other things of the same name, where they are known; "ref" names the thing that a sentence is one of
several about.
"""

import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppt import rle
from ppt.places import Place
from ppt.records import jsonlines
from ppt.records.jsonlines import RowError, text_id
from ppt.records.pairs import RawRow
from ppt.rle import Rle
from ppt.types import Truth


class TruthError(ValueError):
    """A file that holds no truth: unreadable, empty, or without one line of id and segmentation."""


@dataclass(frozen=True)
class Refused:
    """A row that cannot be used: `error` is a short code, `id` is "" where it could not be read."""

    where: str
    id: str
    error: str
    message: str


def read(path: Place) -> list[RawRow]:
    """Every row of a TRUTH file, in its order, by line. Raises TruthError where there can be none."""
    try:
        rows = list(jsonlines.parse(jsonlines.read_bytes(path)))
    except ValueError as error:
        raise TruthError(f"truth: {error}") from error
    if not any(isinstance(row, dict) and {"id", "segmentation"} <= row.keys() for _, row in rows):
        raise TruthError(f"truth: {path}: no line is a JSON object with id and segmentation")
    return [(f"line {line}", row) for line, row in rows]


def checked(
    raw: Iterable[RawRow],
    sizes: Mapping[str, tuple[int, int] | None],
    left_out: Container[str] = (),
    once: bool = False,
) -> tuple[list[Truth], list[Refused]]:
    """The true masks of the ids in `sizes`, sorted by id, and the rows that were refused, in their order.

    A mask is a COCO segmentation, an Rle, or a function that makes one, which is asked only where it is
    wanted. `sizes` gives each image as (height, width), or None where it could not be opened; ids in
    `left_out` are passed over. Polygons on an image that could not be opened are drawn on the smallest canvas
    that holds them, so that their area counts in every denominator. Refused are masks of another size,
    unknown ids, and ids used twice. once: as `rle.joined` has it, of polygons.
    """
    found: dict[str, Truth] = {}
    refused: list[Refused] = []
    for where, row in raw:
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
            mask = _mask(row.get("segmentation"), sizes[identity], once)
            others = _distractors(row.get("distractors"), mask, once)
            found[identity] = Truth(identity, mask, others, str(row.get("ref", "")))
        except (RowError, rle.RleError) as error:
            code = error.error if isinstance(error, RowError) else "bad_mask"
            refused.append(Refused(where, identity, code, f"{where}: {error}"))
    return [found[key] for key in sorted(found)], refused


def _mask(value: Any, size: tuple[int, int] | None, once: bool) -> Rle:
    """On an image of `size`; of one that could not be opened on a canvas of its own."""
    value = value() if callable(value) else value
    height, width = size or _own_canvas(value)
    if not isinstance(value, Rle):
        return rle.from_json(value, height, width, once)
    if size not in (None, (value.height, value.width)):
        raise rle.RleError(f"mask is {value.height}x{value.width} but its image is {height}x{width}")
    return value


def _distractors(value: Any, mask: Rle, once: bool) -> tuple[Rle, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple):
        raise RowError("bad_mask", f"distractors must be a list of masks, got {value!r:.80}")
    return tuple(_mask(one, (mask.height, mask.width), once) for one in value)


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
