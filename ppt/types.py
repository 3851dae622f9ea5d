"""The words everyone uses: validated, frozen nouns, and the two doors' Protocols.

Arrays are NumPy. Points are (x, y) in original pixels with pixel centres at integers; sizes are height,
width of the original image. A noun that exists is valid: every constructor raises ValueError with what it
expected and what it got.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, TypeAlias, get_args, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int8, UInt8

from ppt import rle as codec
from ppt.rle import Rle

Source = Literal["referring", "object_centric"]
ImageEmbedding: TypeAlias = Any  # opaque: only the door that made it looks inside


@dataclass(frozen=True)
class Pair:
    """One row of the user's file: an image (path relative to that file's folder) and a sentence about it.

    split, source, kind: what it is sorted by; kind is whatever the user says of the sentence.
    """

    id: str
    image: str
    text: str
    split: str = ""
    source: Source = "referring"
    kind: str = ""

    def __post_init__(self) -> None:
        for name, value in (("id", self.id), ("image", self.image), ("text", self.text)):
            if not value.strip():
                raise ValueError(f"pair {self.id!r}: {name} must not be blank, got {value!r}")
            if any(0xD800 <= ord(character) <= 0xDFFF for character in value):
                raise ValueError(f"pair {self.id!r}: {name} holds a lone surrogate, not text: {value!r}")
        if self.source not in get_args(Source):
            raise ValueError(
                f"pair {self.id!r}: source must be one of {get_args(Source)}, got {self.source!r}"
            )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Pair":
        return cls(**row)


@dataclass(frozen=True)
class Record:
    """A pair whose image was opened: sha256 of the file, size as decoded, what was odd. One flat row on disk.

    The image's path stays relative to the pairs file; `ppt.records.images.load` finds it.
    """

    pair: Pair
    sha256: str
    height: int
    width: int
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_size(f"record {self.pair.id!r}", self.height, self.width)
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"record {self.pair.id!r}: sha256 must be 64 hex digits, got {self.sha256!r}")

    def to_json(self) -> dict[str, Any]:
        seen = {"sha256": self.sha256, "height": self.height, "width": self.width, "flags": list(self.flags)}
        return {**self.pair.to_json(), **seen}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Record":
        own = {"sha256", "height", "width", "flags"}
        pair = Pair.from_json({name: value for name, value in row.items() if name not in own})
        return cls(pair, row["sha256"], row["height"], row["width"], tuple(row["flags"]))


@dataclass(frozen=True)
class Truth:
    """The true mask of the pair `id`, of the locked room: for evaluation and the report's comparison only.

    distractors: the masks of the image's other things of the same name; None where nobody says. ref: what
    several sentences about one thing share; "" where nobody says.
    """

    id: str
    rle: Rle
    distractors: tuple[Rle, ...] | None = None
    ref: str = ""

    @property
    def twins(self) -> bool | None:
        """Whether the image has another thing of the same name; None where nobody says."""
        return None if self.distractors is None else bool(self.distractors)

    def to_json(self) -> dict[str, Any]:
        row: dict[str, Any] = {"id": self.id, "segmentation": self.rle.to_json()}
        if self.distractors is not None:
            row["distractors"] = [mask.to_json() for mask in self.distractors]
        return row | ({"ref": self.ref} if self.ref else {})

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Truth":
        known = row.get("distractors")
        others = None if known is None else tuple(codec.from_json(mask) for mask in known)
        return cls(row["id"], codec.from_json(row["segmentation"]), others, row.get("ref", ""))


@dataclass(frozen=True, eq=False)
class DenseFeatures:
    """CLIP features on the patch grid over the whole image: values (gh, gw, d) float32, finite.

    Grid cell (i, j) covers original pixels [j * width / gw, (j + 1) * width / gw) and likewise for rows.
    """

    values: Float32[np.ndarray, "gh gw d"]
    height: int
    width: int

    def __post_init__(self) -> None:
        _check_size("dense features", self.height, self.width)
        _check_array("dense features", self.values, ndim=3)
        _check_finite("dense features", self.values)


@dataclass(frozen=True, eq=False)
class RelevanceMap:
    """Text-image relevance on the patch grid: values (gh, gw) float32, any range, higher is more relevant."""

    values: Float32[np.ndarray, "gh gw"]
    height: int
    width: int

    def __post_init__(self) -> None:
        _check_size("relevance map", self.height, self.width)
        _check_array("relevance map", self.values, ndim=2)

    def normalised(self) -> "RelevanceMap | None":
        """The map stretched to [0, 1]; None where it is no evidence: flat up to rounding, or not finite."""
        if not np.isfinite(self.values).all():
            return None
        low, high = float(self.values.min()), float(self.values.max())
        if high - low <= 1e-6 * max(abs(low), abs(high)):
            return None
        stretched = (self.values.astype(np.float64) - low) / (high - low)
        return RelevanceMap(stretched.astype(np.float32), self.height, self.width)


@dataclass(frozen=True, eq=False)
class PointSet:
    """Point prompts of one sentence: xy (n, 2) float32 in original pixels; labels (n,) int8.

    Labels: 1 positive, 0 negative, -1 ignored. `confidence` in [0, 1]; `reasons` say how the points came to
    be. An empty set (n = 0) says that there was no evidence.
    """

    xy: Float32[np.ndarray, "n 2"]
    labels: Int8[np.ndarray, " n"]
    confidence: float
    reasons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.xy.shape != (len(self.labels), 2):
            raise ValueError(
                f"points: xy must be ({len(self.labels)}, 2) like the labels, got {self.xy.shape}"
            )
        _check_finite("points: xy", self.xy)
        if not np.isin(self.labels, (-1, 0, 1)).all():
            raise ValueError(f"points: labels must be 1, 0 or -1, got {sorted(set(self.labels.tolist()))}")
        _check_unit("points: confidence", self.confidence)

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[float | int]], reasons: Sequence[str] = ()) -> "PointSet":
        """Of rows [x, y, label], as DIR/masks has them, sure of all."""
        values = np.asarray(rows, np.float32).reshape(-1, 3)
        return cls(values[:, :2], values[:, 2].astype(np.int8), 1.0, tuple(reasons))

    def to_json(self) -> dict[str, Any]:
        xy, labels = self.xy.tolist(), self.labels.tolist()
        return {"xy": xy, "labels": labels, "confidence": self.confidence, "reasons": list(self.reasons)}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "PointSet":
        xy = np.asarray(row["xy"], dtype=np.float32).reshape(-1, 2)
        return cls(xy, np.asarray(row["labels"], dtype=np.int8), row["confidence"], tuple(row["reasons"]))


@dataclass(frozen=True, eq=False)
class MaskCandidates:
    """SAM's candidates for one sentence: c masks of one size; predicted IoU and stability, finite."""

    rles: tuple[Rle, ...]
    predicted_iou: Float32[np.ndarray, " c"]
    stability: Float32[np.ndarray, " c"]

    def __post_init__(self) -> None:
        for name, scores in (("predicted_iou", self.predicted_iou), ("stability", self.stability)):
            if scores.shape != (len(self.rles),):
                raise ValueError(f"candidates: {name} must be ({len(self.rles)},), got {scores.shape}")
            _check_finite(f"candidates: {name}", scores)
        sizes = {(rle.height, rle.width) for rle in self.rles}
        if len(sizes) > 1:
            raise ValueError(f"candidates: masks must share one size, got {sorted(sizes)}")

    def to_json(self) -> dict[str, Any]:
        scores = {"predicted_iou": self.predicted_iou.tolist(), "stability": self.stability.tolist()}
        return {"masks": [rle.to_json() for rle in self.rles], **scores}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "MaskCandidates":
        rles = tuple(codec.from_json(mask) for mask in row["masks"])
        predicted_iou = np.asarray(row["predicted_iou"], dtype=np.float32)
        return cls(rles, predicted_iou, np.asarray(row["stability"], dtype=np.float32))


@dataclass(frozen=True)
class PseudoLabel:
    """The mask chosen for a pair, how much to trust it (`weight` in [0, 1]), and why.

    `segmentation` is None, and then `weight` is 0, when there is no mask to train on. `scores` are finite.
    `review`: what a person decided, who and when; None where nobody did. `of`: what there was to choose from,
    as `ppt.review.about` has it; "" where that is not known.
    """

    id: str
    image: str
    text: str
    segmentation: Rle | None
    scores: dict[str, float]
    weight: float
    reasons: tuple[str, ...] = ()
    review: Mapping[str, str] | None = None
    of: str = ""

    def __post_init__(self) -> None:
        _check_unit(f"label {self.id!r}: weight", self.weight)
        if self.segmentation is None and self.weight > 0:
            raise ValueError(f"label {self.id!r}: weight must be 0 without a mask, got {self.weight}")
        for name, score in self.scores.items():
            if not math.isfinite(score):
                raise ValueError(f"label {self.id!r}: score {name!r} must be finite, got {score}")

    def to_json(self) -> dict[str, Any]:
        segmentation = self.segmentation and self.segmentation.to_json()
        row = {**asdict(self), "segmentation": segmentation, "reasons": list(self.reasons)}
        unknown = ("review",) * (self.review is None) + ("of",) * (not self.of)
        return {name: value for name, value in row.items() if name not in unknown}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "PseudoLabel":
        values: dict[str, Any] = {**row, "reasons": tuple(row["reasons"])}
        if row["segmentation"] is not None:
            values["segmentation"] = codec.from_json(row["segmentation"])
        return cls(**values)


@runtime_checkable
class TextImageModel(Protocol):
    """The CLIP door. `fingerprint` covers architecture, weights and preprocessing."""

    fingerprint: str

    def encode_image(self, image: UInt8[np.ndarray, "h w 3"]) -> DenseFeatures:
        """RGB image (h, w, 3) uint8 -> dense features in the space of the texts."""
        ...

    def encode_texts(self, texts: list[str]) -> tuple[Float32[np.ndarray, "n d"], list[bool]]:
        """Sentences -> unit vectors (n, d) float32, and whether each was cut to the model's context."""
        ...


@runtime_checkable
class PromptableModel(Protocol):
    """The SAM door: embed an image once, prompt it many times. `fingerprint` as in `TextImageModel`."""

    fingerprint: str

    def embed(self, image: UInt8[np.ndarray, "h w 3"]) -> ImageEmbedding:
        """RGB image (h, w, 3) uint8 -> embedding for `predict`."""
        ...

    def predict(self, embedding: ImageEmbedding, prompts: Sequence[PointSet]) -> list[MaskCandidates]:
        """Several sentences of one image in one call: one set of candidates per set of points, in order."""
        ...


def _check_size(what: str, height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise ValueError(f"{what}: height and width must be at least 1, got {height}x{width}")


def _check_array(what: str, values: np.ndarray, ndim: int) -> None:
    if values.ndim != ndim or 0 in values.shape:
        raise ValueError(
            f"{what}: values must be a {ndim}-D array with no empty side, got shape {values.shape}"
        )


def _check_finite(what: str, values: np.ndarray) -> None:
    bad = int(values.size - np.isfinite(values).sum())
    if bad:
        raise ValueError(f"{what} must be finite, got {bad} of {values.size} values that are not")


def _check_unit(what: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{what} must lie in [0, 1], got {value}")
