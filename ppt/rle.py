"""The only mask codec: COCO run-length encoding, checked before any C code sees it.

A mask is bool (h, w) in original pixels. Its `Rle` is COCO's compressed form: column-major runs, background
first, packed as ASCII. pycocotools trusts what it is given (a bad string makes it read and write out of
bounds), so an `Rle` cannot exist unless its runs were parsed here, are positive, and sum to height x width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import cv2
import numpy as np
from jaxtyping import Bool, Int64
from pycocotools import mask as _pycocotools  # pyright: ignore[reportMissingTypeStubs]

_coco: Any = _pycocotools  # untyped third party

MAX_SIDE = 65_535
MAX_PIXELS = 2**28
_MAX_CHARS_PER_RUN = 7  # 5 bits a character: enough for any run below 2**31


class RleError(ValueError):
    """A mask description that is not a valid COCO RLE or polygon list; the text says why."""


@dataclass(frozen=True)
class Rle:
    """One mask as COCO compressed RLE. `height`, `width` in original pixels, `counts` in ASCII.

    Runs are canonical (only the first may be zero), so masks made by this module are equal when their `Rle`
    are. Raises RleError when the size is out of bounds or the runs do not describe exactly height x width
    pixels.
    """

    height: int
    width: int
    counts: str

    def __post_init__(self) -> None:
        _check_size(self.height, self.width)
        runs = _parse(self.counts, self.height, self.width)
        _check_runs(runs, self.height, self.width)
        if (runs[1:] == 0).any():
            raise RleError("RLE has a zero run after the first; read foreign masks with ppt.rle.from_json")

    def to_json(self) -> dict[str, Any]:
        """COCO's own form: {"size": [height, width], "counts": str}."""
        return {"size": [self.height, self.width], "counts": self.counts}


def check(value: Mapping[str, Any]) -> Rle:
    """A COCO RLE dict (`counts` compressed str/bytes or a list of runs) -> canonical Rle. Raises RleError."""
    size, counts = value.get("size"), value.get("counts")
    if not _is_list(size) or len(size) != 2:
        raise RleError(f"RLE size must be [height, width], got {size!r}")
    height, width = size
    _check_size(height, width)
    if isinstance(counts, bytes):
        counts = counts.decode("ascii", errors="replace")
    if isinstance(counts, str):
        runs = _parse(counts, height, width)
    elif _is_list(counts):
        runs = _listed(counts, height, width)
    else:
        raise RleError(f"RLE counts must be a string or a list of runs, got {type(counts).__name__}")
    _check_runs(runs, height, width)
    packed = _coco.frPyObjects({"size": [height, width], "counts": _without_zeros(runs)}, height, width)
    return _wrap(packed)


def from_json(value: Any, height: int | None = None, width: int | None = None, once: bool = False) -> Rle:
    """A COCO `segmentation` of any kind -> Rle: RLE dict, or polygons (which need `height` and `width`).

    once: as in `joined`, of polygons. Raises RleError when the mask is malformed or its own size differs from
    the expected one.
    """
    if _is_object(value):
        rle = check(value)
        expected = (height or rle.height, width or rle.width)
        if (rle.height, rle.width) != expected:
            raise RleError(f"mask is {rle.height}x{rle.width} but its image is {expected[0]}x{expected[1]}")
        return rle
    if _is_list(value):
        if height is None or width is None:
            raise RleError("polygons carry no size: pass the image's height and width")
        return from_polygons(value, height, width, once)
    raise RleError(f"segmentation must be an RLE object or a list of polygons, got {type(value).__name__}")


def from_polygons(polygons: Sequence[Any], height: int, width: int, once: bool = False) -> Rle:
    """Polygons [[x0, y0, x1, y1, ...], ...] in original pixels -> their insides, `joined`.

    Raises RleError for no polygon, fewer than three points, an odd count, or a coordinate that is not
    finite or lies more than one image size outside.
    """
    _check_size(height, width)
    if not polygons:
        raise RleError("the list of polygons is empty")
    checked = [_checked_polygon(polygon, index, height, width) for index, polygon in enumerate(polygons)]
    return joined([check(part) for part in _coco.frPyObjects(checked, height, width)], once)


def joined(masks: Sequence[Rle], once: bool = False) -> Rle:
    """The pixels of any of some masks of one size; once: of exactly one of them, as LAVT's loader has it.

    Raises RleError for no mask, or masks of several sizes.
    """
    sizes = {(mask.height, mask.width) for mask in masks}
    if len(sizes) != 1:
        raise RleError(f"expected masks of one size, got {sorted(sizes)}")
    if len(masks) == 1:
        return masks[0]
    if once:
        return encode(np.sum([decode(mask) for mask in masks], 0) == 1)
    return check(_coco.merge([_raw(mask) for mask in masks], intersect=False))


def encode(mask: Bool[np.ndarray, "h w"]) -> Rle:
    """Mask (h, w) bool -> Rle."""
    height, width = mask.shape
    _check_size(height, width)
    columns = cv2.transpose(
        mask.astype(np.uint8)
    )  # its .T is Fortran-ordered: far cheaper than asfortranarray
    return _wrap(_coco.encode(columns.T))


def decode(rle: Rle) -> Bool[np.ndarray, "h w"]:
    """Rle -> mask (height, width) bool, C-contiguous."""
    return np.ascontiguousarray(_coco.decode(_raw(rle))).astype(bool)


def area(rle: Rle) -> int:
    """Number of foreground pixels."""
    return int(_coco.area(_raw(rle)))


def box(rle: Rle) -> tuple[int, int, int, int]:
    """Tight box (x0, y0, x1, y1) in original pixels, ends exclusive; (0, 0, 0, 0) for an empty mask."""
    x, y, w, h = (int(value) for value in _coco.toBbox(_raw(rle)))
    return (x, y, x + w, y + h) if w and h else (0, 0, 0, 0)


def intersection_union(a: Rle, b: Rle) -> tuple[int, int]:
    """(pixels in both, pixels in either), without decoding. Raises RleError when the sizes differ."""
    if (a.height, a.width) != (b.height, b.width):
        raise RleError(f"masks differ in size: {a.height}x{a.width} and {b.height}x{b.width}")
    both = int(_coco.area(_coco.merge([_raw(a), _raw(b)], intersect=True)))
    return both, area(a) + area(b) - both


def iou(a: Rle, b: Rle) -> float:
    """Intersection over union in [0, 1]; 0.0 when both are empty (metrics name their own convention)."""
    both, either = intersection_union(a, b)
    return both / either if either else 0.0


def _raw(rle: Rle) -> dict[str, Any]:
    return {"size": [rle.height, rle.width], "counts": rle.counts.encode("ascii")}


def _wrap(raw: Mapping[str, Any]) -> Rle:
    height, width = raw["size"]
    return Rle(int(height), int(width), raw["counts"].decode("ascii"))


def _check_size(height: Any, width: Any) -> None:
    for name, side in (("height", height), ("width", width)):
        if type(side) is not int or not 1 <= side <= MAX_SIDE:
            raise RleError(f"RLE {name} must be an integer in 1..{MAX_SIDE}, got {side!r}")
    if height * width > MAX_PIXELS:
        raise RleError(f"RLE covers {height}x{width} pixels, more than the {MAX_PIXELS} allowed")


def _parse(counts: str, height: int, width: int) -> Int64[np.ndarray, " runs"]:
    """Unpack COCO's string: 5 bits a character, bit 5 = more follows, bit 4 of the last = sign.

    From the fourth run on, what is stored is the difference to the run two before.
    """
    if not counts:
        raise RleError("RLE counts is empty")
    if len(counts) > _MAX_CHARS_PER_RUN * (height * width + 1):
        raise RleError(f"RLE counts has {len(counts)} characters, too many for {height}x{width} pixels")
    if not counts.isascii():
        raise RleError("RLE counts holds characters that are not ASCII")
    codes = np.frombuffer(counts.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    if ((codes < 0) | (codes > 63)).any():
        position = int(np.argmax((codes < 0) | (codes > 63)))
        raise RleError(f"RLE counts holds {counts[position]!r} at position {position}, outside '0'..'o'")
    ends = np.flatnonzero((codes & 32) == 0)
    if ends.size == 0 or ends[-1] != codes.size - 1:
        raise RleError("RLE counts is cut off in the middle of a run")
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > _MAX_CHARS_PER_RUN:
        raise RleError(
            f"RLE counts holds a run of {lengths.max()} characters, at most {_MAX_CHARS_PER_RUN} expected"
        )
    shifts = 5 * (np.arange(codes.size) - np.repeat(starts, lengths))
    values = np.add.reduceat((codes & 31) << shifts, starts)
    values -= np.where(codes[ends] & 16, np.int64(1) << (5 * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def _listed(counts: Sequence[Any], height: int, width: int) -> Int64[np.ndarray, " runs"]:
    for index, run in enumerate(counts):
        if type(run) is not int or not 0 <= run <= height * width:
            raise RleError(f"RLE run {index} must be an integer in 0..{height * width}, got {run!r}")
    return np.asarray(counts, dtype=np.int64)


def _check_runs(runs: Int64[np.ndarray, " runs"], height: int, width: int) -> None:
    if (runs < 0).any():
        index = int(np.argmax(runs < 0))
        raise RleError(f"RLE run {index} is negative: {runs[index]}")
    if runs.sum() != height * width:
        raise RleError(f"RLE runs sum to {runs.sum()}, but {height}x{width} is {height * width} pixels")


def _without_zeros(runs: Int64[np.ndarray, " runs"]) -> list[int]:
    """The same pixels with every zero run but the first gone and its neighbours joined."""
    values = np.arange(runs.size) % 2
    keep = runs > 0
    runs, values = runs[keep], values[keep]
    starts = np.flatnonzero(np.diff(values, prepend=-1))
    joined = np.add.reduceat(runs, starts).tolist()
    return joined if values[0] == 0 else [0, *joined]


def _checked_polygon(polygon: Any, index: int, height: int, width: int) -> list[float]:
    if not _is_list(polygon):
        raise RleError(f"polygon {index} must be a list of numbers, got {type(polygon).__name__}")
    if len(polygon) < 6 or len(polygon) % 2:
        raise RleError(f"polygon {index} must hold at least three x, y pairs, got {len(polygon)} numbers")
    for position, number in enumerate(polygon):
        side = height if position % 2 else width
        if type(number) not in (int, float) or not -side <= number <= 2 * side:
            raise RleError(
                f"polygon {index} has coordinate {number!r} at {position}, expected {-side}..{2 * side}"
            )
    return [float(number) for number in polygon]


def _is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list | tuple)


def _is_object(value: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping)
