"""Every pair that a config names: the user's own file, and data sets in the layouts they are published in."""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ppt.config import ConfigError
from ppt.places import Place, above_all, from_above
from ppt.records import captions, cris, folders, pairs, phrasecut, refer, webdataset
from ppt.records import truth as truths
from ppt.records.coco_images import coco_id
from ppt.records.dataset import DataSet
from ppt.records.jsonlines import RowError
from ppt.records.pairs import RawRow, Row
from ppt.records.truth import TruthError
from ppt.settings import RecordsConfig, SourceConfig

TRUTHFUL = {"refer", "cris", "phrasecut"}
"""The formats that have true masks."""
LEAK = "leak"
"""Why a row is refused that would teach about an image that is evaluated on."""
READERS: dict[str, Callable[[SourceConfig, RecordsConfig], DataSet]] = {
    "pairs": lambda source, _: _own(source),
    "refer": refer.read,
    "cris": cris.read,
    "phrasecut": phrasecut.read,
    "coco_captions": captions.coco,
    "flickr30k": captions.flickr30k,
    "classes": folders.classes,
    "imagefolder": folders.imagefolder,
    "webdataset": webdataset.read,
}


@dataclass(frozen=True)
class Sources:
    """All of them together. images: the folder that every image's path is relative to. rows: in order.
    truth: of those that have one; None where nothing says what is true. files: those that were read.
    """

    images: Place
    rows: list[Row]
    truth: list[RawRow] | None
    files: tuple[Place, ...]


def read(records: RecordsConfig) -> Sources:
    """The pairs that `records` names. Raises ConfigError where it names none, PairsError and TruthError."""
    check_named(records)
    return together(records, [found for _, found in each(records)])


def check_named(records: RecordsConfig) -> None:
    """Raises ConfigError where no pairs are named, TruthError where a truth is that is not there."""
    if records.pairs is None and not records.sources:
        raise ConfigError(
            "records.pairs: name the file of pairs, e.g. --set records.pairs=pairs.jsonl (got None),"
            " or data sets in records.sources"
        )
    if records.truth is not None and not records.truth.is_file():
        raise TruthError(f"truth: {records.truth} is not there; mend records.truth, or leave it out")


def each(records: RecordsConfig) -> list[tuple[SourceConfig, DataSet]]:
    """The user's own pairs, and every data set, as its reader finds it."""
    own = [SourceConfig(format="pairs", path=records.pairs)] if records.pairs is not None else []
    return [(source, READERS[source.format](source, records)) for source in (*own, *records.sources)]


def together(records: RecordsConfig, found: Sequence[DataSet]) -> Sources:
    """Data sets as one, and the truth that is named beside them. Raises TruthError, and PlaceError where no
    folder is above all their images.
    """
    images = above_all([one.images.absolute() for one in found])
    raw = [(_at(n, at), _below(images, one, row)) for n, one in enumerate(found) for at, row in one.pairs]
    truth = [(_at(n, at), row) for n, one in enumerate(found) for at, row in one.truth]
    if records.truth is not None:
        truth += [(where, row) for where, row in truths.read(records.truth)]
    files = tuple(file for one in found for file in one.files)
    return Sources(images, pairs.checked(raw), truth if truth else None, files)


def may_tell_truth(records: RecordsConfig) -> bool:
    """Whether true masks are named, or data sets that come with some."""
    return records.truth is not None or any(one.truth and one.format in TRUTHFUL for one in records.sources)


def _own(source: SourceConfig) -> DataSet:
    rows, splits = pairs.read(source.path), source.splits
    if splits:
        rows = [(at, row) for at, row in rows if isinstance(row, RowError) or row.get("split", "") in splits]
    return DataSet(source.images or source.path.parent, rows, [], (source.path,))


def _at(number: int, where: str) -> str:
    """Where a row stands, once more than one data set is read."""
    return where if number == 0 else f"source {number + 1}, {where}"


def _below(images: Place, found: DataSet, row: dict[str, Any] | RowError) -> dict[str, Any] | RowError:
    """The row with its image's path from `images`."""
    below = from_above(found.images.absolute(), images)
    if not below or isinstance(row, RowError) or not isinstance(row.get("image"), str):
        return row
    try:
        pairs.check_image_path(row["image"])  # before a folder in front makes an absolute path relative
    except RowError as error:
        return error
    return {**row, "image": f"{below}/{row['image']}"}


def leaks(
    rows: Sequence[Row],
    chosen: Sequence[Row],
    contents: Mapping[str, str | None],
    teaching: Collection[str],
) -> dict[str, list[str]]:
    """Image -> where its teaching rows stand, for every image of the chosen rows that a row of another split
    is about, too, be that one chosen or not.

    Two images are one where their bytes are, or their numbers in COCO: its sets share photographs, under two
    names. teaching: the splits that may teach; contents: image -> sha256, None where that is not known.
    """
    judged: set[object] = set()
    for row in rows:
        if row.pair is not None and row.split not in teaching:
            judged |= _marks(row.pair.image, contents)
    taught: dict[str, list[str]] = defaultdict(list)
    for row in chosen:
        if row.pair is not None and row.split in teaching:
            taught[row.pair.image].append(row.where)
    return {image: wheres for image, wheres in taught.items() if _marks(image, contents) & judged}


def _marks(image: str, contents: Mapping[str, str | None]) -> set[object]:
    return {contents.get(image), coco_id(image)} - {None}


def without(rows: Sequence[Row], leaked: Mapping[str, Sequence[str]]) -> list[Row]:
    """The rows with those that leak refused."""
    found = {where: image for image, wheres in leaked.items() for where in wheres}
    told = "it may teach, and its image is one that is evaluated on"
    return [
        replace(row, pair=None, error=LEAK, message=f"{row.where}: {found[row.where]}: {told}")
        if row.where in found
        else row
        for row in rows
    ]
