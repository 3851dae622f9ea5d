"""What an export is made of: a mask with its sentence and score, and an image with those of one split."""

from collections import Counter
from dataclasses import dataclass, field

from ppt.quality import Band
from ppt.rle import Rle
from ppt.types import Record


class ExportError(ValueError):
    """An export that cannot be made as it was asked for; the text says why and what to do."""


@dataclass(frozen=True)
class Labelled:
    """A record and its mask in original pixels, None where there is none; score in [0, 1], higher is better;
    whether a person looked at it.

    Raises ValueError where the mask is of another size than the image.
    """

    record: Record
    mask: Rle | None
    score: float
    band: Band
    reasons: tuple[str, ...] = ()
    reviewed: bool = False

    def __post_init__(self) -> None:
        id, size = self.record.pair.id, (self.record.height, self.record.width)
        if not 0 <= self.score <= 1:
            raise ValueError(f"item {id!r}: score must lie in [0, 1], got {self.score}")
        if self.mask is not None and (self.mask.height, self.mask.width) != size:
            raise ValueError(
                f"item {id!r}: mask is {self.mask.height}x{self.mask.width}, its image {size[0]}x{size[1]}"
            )

    @property
    def id(self) -> str:
        return self.record.pair.id

    @property
    def text(self) -> str:
        return self.record.pair.text


@dataclass(frozen=True)
class Mask:
    """An item that is exported: it has a mask, and the mask has pixels."""

    item: Labelled
    rle: Rle


@dataclass(frozen=True)
class Picture:
    """An image and its masks of one split; none where all of them were left out.

    split: a name that any format takes. file: where the image lies, from the export's folder, or from that of
    the user's images where it is not brought along; "" before that is known.
    """

    record: Record
    split: str
    masks: tuple[Mask, ...]
    file: str = ""

    @property
    def image(self) -> str:
        return self.record.pair.image

    @property
    def height(self) -> int:
        return self.record.height

    @property
    def width(self) -> int:
        return self.record.width


@dataclass(frozen=True)
class Wishes:
    """What a format may be told. category: the one name that every mask is given. polygons: of COCO, in place
    of RLE. url_prefix: of Label Studio, what stands before an image's path.
    """

    category: str = "object"
    polygons: bool = False
    url_prefix: str = ""


@dataclass
class Tally:
    """What came of it, counted while it is written, for the summary and the card.

    masks, images: by split. bands: (split, band) -> masks. reviewed: masks that a person looked at. left:
    items left out, by reason; faults: those of them that something was wrong with. notes: what a format could
    not say as it is, by what was done instead. scores: how many in each tenth of [0, 1]. polygons: IoU of
    every mask with its polygons, drawn again.
    """

    masks: Counter[str] = field(default_factory=Counter)
    images: Counter[str] = field(default_factory=Counter)
    bands: Counter[tuple[str, str]] = field(default_factory=Counter)
    reviewed: int = 0
    left: Counter[str] = field(default_factory=Counter)
    faults: int = 0
    notes: Counter[str] = field(default_factory=Counter)
    scores: Counter[int] = field(default_factory=Counter)
    polygons: list[float] = field(default_factory=list)

    def count(self, picture: Picture) -> None:
        """A picture is written."""
        self.images[picture.split] += 1
        for mask in picture.masks:
            self.masks[picture.split] += 1
            self.reviewed += mask.item.reviewed
            self.bands[picture.split, mask.item.band] += 1
            self.scores[min(9, int(mask.item.score * 10))] += 1

    def leave(self, reason: str, items: int = 1, fault: bool = False) -> None:
        """Items are left out; fault: since something is wrong, not since it was asked for."""
        if items:
            self.left[reason] += items
            self.faults += items * fault
