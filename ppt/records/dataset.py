"""What every reader of a data set gives: rows such as a PAIRS file has, and rows such as a TRUTH file has."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from ppt.places import Place, on_disk
from ppt.records import jsonlines
from ppt.records.jsonlines import RowError
from ppt.records.pairs import PairsError, RawRow
from ppt.settings import SourceConfig

MAX_BYTES = 2**31
"""Of a JSON file, which is held in memory as a whole."""
LISTED = 5


@dataclass(frozen=True)
class DataSet:
    """A data set as it was found. images: the folder that image paths are relative to. pairs, truth: rows, as
    `pairs.checked` and `truth.checked` take them, by where they stand; the truth is of those that have one.
    files: those that were read.
    """

    images: Place
    pairs: list[RawRow]
    truth: list[RawRow]
    files: tuple[Place, ...]


def path_of(source: SourceConfig) -> Path:
    """Where a data set lies in a layout that is read from disks alone. Raises PlaceError for a URL."""
    return on_disk(source.path, f"records.sources[].path: data of format {source.format}")


def json_file(path: Path, what: str) -> Any:
    """The JSON of a file. Raises PairsError saying what it should have been, and on which line it is not."""
    if not path.exists():
        raise PairsError(f"{path} is not there; it should hold {what}")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise PairsError(f"{path} has {path.stat().st_size} bytes; at most {MAX_BYTES} are read")
        content = jsonlines.read_bytes(path)
    except (OSError, ValueError) as error:
        raise PairsError(f"{error}; it should hold {what}") from error
    try:
        return jsonlines.parse_whole(content)
    except RowError as error:
        raise PairsError(f"{path} is not JSON that is read; it should hold {what}: {error}") from error


def rows_of(value: Any, key: str, path: Path) -> list[dict[str, Any]]:
    """The list of objects under a key of a JSON object, or the value itself where the key is "".

    Raises PairsError where there is none.
    """
    found = value.get(key) if key and isinstance(value, Mapping) else value
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        named = f"under {key!r} " if key else ""
        raise PairsError(f"{path}: expected a list of objects {named}got {type(found).__name__}")
    return found


def by_id(rows: list[dict[str, Any]], path: Path, key: str = "id") -> dict[int | str, dict[str, Any]]:
    """The rows of a file by their ids; one without an id that could be named is left out.

    Raises PairsError where rows that differ share an id: no one could say which is meant.
    """
    found: dict[int | str, dict[str, Any]] = {}
    twice: dict[int | str, None] = {}
    for row in rows:
        name = row.get(key)
        if _is_name(name) and found.setdefault(name, row) != row:
            twice[name] = None
    if twice:
        shown = ", ".join(f"{name!r:.80}" for name in [*twice][:LISTED])
        raise PairsError(f"{path}: {len(twice)} ids are those of rows that differ: {shown}")
    return found


def named(rows: Mapping[int | str, Any], number: Any) -> Any:
    """The row of an id, which may be anything; None where there is none."""
    return rows.get(number) if _is_name(number) else None


def _is_name(value: Any) -> TypeGuard[int | str]:
    return isinstance(value, int | str) and not isinstance(value, bool)


def size_of(image: Mapping[str, Any]) -> tuple[int, int]:
    """(height, width) of an image that a list names. Raises RowError where it gives none."""
    height, width = image.get("height"), image.get("width")
    if not isinstance(height, int) or not isinstance(width, int) or min(height, width) < 1:
        raise RowError(
            "bad_mask", f"expected the image's height and width, got {height!r:.40} and {width!r:.40}"
        )
    return height, width


def sentences_of(ref: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sentences of a ref. Raises RowError where there are none to be read."""
    found = ref.get("sentences")
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise RowError("bad_ref", f"sentences must be a list of objects, got {found!r:.80}")
    return found


def row_of(name: str, where: str, sentence: Mapping[str, Any], **more: Any) -> RawRow:
    """Where a sentence about a thing stands, and its columns: those of every set of REFER's, and more."""
    number = sentence.get("sent_id")
    return f"{where}, sentence {number}", {"id": f"{name}-{number}", "ref": where, **more}


def folder_of(given: Place | None, usual: Path) -> Path:
    """The folder of the images: the one that is given, or where the layout has it. Raises PairsError, and
    PlaceError for a URL.
    """
    folder = on_disk(given or usual, "records.sources[].images: those of this format")
    if not folder.is_dir():
        raise PairsError(f"{folder} is no folder; name that of the images in records.sources[].images")
    return folder
