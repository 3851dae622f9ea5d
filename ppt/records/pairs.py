"""Pairs, row by row: the user's PAIRS file (JSON lines or CSV), and what every row of any data set must be.

Columns: `image` (path relative to the file's folder) and `text`; optional `id` (else derived from both),
`split`, `source`, and `kind` (a group to break scores down by). Other columns are ignored. A bad row is
refused, by its line or wherever it stands, and the rest is read; only a file that cannot be pairs at all
raises.
"""

import csv
import hashlib
import io
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, TypeAlias, get_args

from ppt.places import Place
from ppt.records import jsonlines
from ppt.records.jsonlines import RowError, text_id
from ppt.types import Pair, Source

MAX_PATH = 4096  # bytes

RawRow: TypeAlias = tuple[str, dict[str, Any] | RowError]  # where, the columns or why there are none
Numbered: TypeAlias = tuple[int, dict[str, Any] | RowError]


class PairsError(ValueError):
    """A file that holds no pairs: unreadable, empty, or without the columns image and text."""


@dataclass(frozen=True)
class Row:
    """One row: a `pair`, or None, and then `error` (a short code) and `message` say why it is refused.

    where: "line 7", or another place of its own. A refused row keeps what could be read of it; the rest of
    its columns are "".
    """

    where: str
    id: str
    split: str
    source: str
    kind: str
    pair: Pair | None
    error: str = ""
    message: str = ""


def read(path: Place) -> list[RawRow]:
    """Every row of a PAIRS file, in its order, by line. Raises PairsError where there can be none."""
    try:
        content = jsonlines.read_bytes(path)
    except ValueError as error:
        raise PairsError(f"pairs: {error}") from error
    rows = _json_rows(content, path) if _is_json(content, path) else _csv_rows(content, path)
    return [(f"line {line}", row) for line, row in rows]


def checked(raw: Iterable[RawRow]) -> list[Row]:
    """The rows in their order, each a pair or refused; of those with one id the first is kept."""
    rows: list[Row] = []
    first: dict[str, str] = {}
    for where, value in raw:
        row = _checked(where, value)
        if row.pair is not None and first.setdefault(row.id, where) != where:
            row = _refused(row, RowError("duplicate_id", f"id {row.id!r} is that of {first[row.id]}"))
        rows.append(row)
    return rows


def select(rows: Sequence[Row], splits: Collection[str] = (), limit: int | None = None) -> list[Row]:
    """The rows of `splits` (none: all) up to the `limit`-th pair; a refused row of unknown split stays in."""
    chosen: list[Row] = []
    pairs = 0
    for row in rows:
        if limit is not None and pairs >= limit:
            break
        unknown = row.pair is None and not row.split
        if not splits or row.split in splits or unknown:
            chosen.append(row)
            pairs += row.pair is not None
    return chosen


def derived_id(image: str, text: str) -> str:
    """Id of a pair whose row gives none: the same for the same image path and sentence, be its accents
    letters of their own or not (NFC).
    """
    return hashlib.sha256(f"{image}\0{unicodedata.normalize('NFC', text)}".encode()).hexdigest()[:16]


def check_image_path(image: str) -> None:
    """Raises RowError unless `image` is a relative path that cannot leave its folder by its spelling."""
    problem = None
    if len(image.encode()) > MAX_PATH:
        problem = f"is longer than {MAX_PATH} bytes"
    elif any(unicodedata.category(character) == "Cc" for character in image):
        problem = "holds a control character"
    elif PurePosixPath(image).is_absolute() or PureWindowsPath(image).anchor or image.startswith("~"):
        problem = "must be relative to the folder of the pairs file"
    elif "://" in image:
        problem = "must be a path below the folder of the pairs file, not a URL"
    elif ".." in PurePosixPath(image).parts or ".." in PureWindowsPath(image).parts:
        problem = "must not step upwards with '..'"
    if problem:
        raise RowError("unsafe_path", f"image path {image!r:.120} {problem}")


def _is_json(content: bytes, path: Place) -> bool:
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson", ".json"):
        return True
    return suffix != ".csv" and content.removeprefix(jsonlines.BYTE_ORDER_MARK).lstrip().startswith(b"{")


def _json_rows(content: bytes, path: Place) -> Iterator[Numbered]:
    rows = list(jsonlines.parse(content))
    objects = [row for _, row in rows if not isinstance(row, RowError)]
    if not objects:
        line, problem = rows[0]
        raise PairsError(f"pairs: {path}: not one line is a JSON object; line {line}: {problem}")
    if not any({"image", "text"} <= row.keys() for row in objects):
        raise PairsError(
            f"pairs: {path}: no line has the keys image and text; the first has {sorted(objects[0])}"
        )
    yield from rows


def _csv_rows(content: bytes, path: Place) -> Iterator[Numbered]:
    # Spreadsheets write a byte order mark. Bytes that are not UTF-8 become surrogates, to be refused by row.
    text = content.removeprefix(jsonlines.BYTE_ORDER_MARK).decode("utf-8", "surrogateescape")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise PairsError(f"pairs: {path}: the header is not CSV: {error}") from error
    if not {"image", "text"} <= set(header):
        raise PairsError(
            f"pairs: {path}: the header must name the columns image and text, got {header!r:.200}"
        )
    if len(set(header)) < len(header):
        raise PairsError(f"pairs: {path}: the header names a column twice: {header!r:.200}")
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, RowError("bad_csv", f"not CSV: {error}")
            continue
        if cells:
            yield line, _csv_row(header, cells)


def _csv_row(header: Sequence[str], cells: Sequence[str]) -> dict[str, Any] | RowError:
    if len(cells) != len(header):
        return RowError("bad_csv", f"expected {len(header)} columns, got {len(cells)}")
    if any(_is_surrogate(character) for cell in cells for character in cell):
        return RowError("bad_utf8", "the row holds bytes that are not UTF-8")
    return {name: cell for name, cell in zip(header, cells, strict=True) if cell != ""}


def _checked(where: str, value: dict[str, Any] | RowError) -> Row:
    row = Row(where, "", "", "", "", None)
    try:
        if isinstance(value, RowError):
            raise value
        given = value.get("id")  # read first, so that whatever else is wrong is told under the row's name
        row = row if given is None else replace(row, id=text_id(given))
        image, text = _text(value, "image"), _text(value, "text")
        row = replace(row, id=derived_id(image, text)) if given is None else row
        split, source = _text(value, "split", ""), _text(value, "source", "referring")
        row = replace(row, split=split, source=source, kind=_text(value, "kind", ""))
        check_image_path(image)
        if not any(_means_something(character) for character in text):
            raise RowError("empty_text", f"the text has no word in it: {text!r:.80}")
        pair = Pair(row.id, image, text, split, _known_source(source), row.kind)
    except RowError as error:
        return _refused(row, error)
    except ValueError as error:
        return _refused(row, RowError("bad_value", str(error)))
    return replace(row, pair=pair)


def _known_source(name: str) -> Source:
    for source in get_args(Source):
        if name == source:
            return source
    raise RowError("bad_value", f"source must be one of {get_args(Source)}, got {name!r:.80}")


def _refused(row: Row, error: RowError) -> Row:
    return replace(row, pair=None, error=error.error, message=f"{row.where}: {error}")


def _text(value: Mapping[str, Any], name: str, default: str | None = None) -> str:
    found = value.get(name)
    found = default if found is None else found
    if found is None:
        raise RowError("bad_value", f"{name} is missing")
    if not isinstance(found, str):
        raise RowError("bad_value", f"{name} must be text, got {found!r:.80}")
    if any(_is_surrogate(character) for character in found):
        raise RowError("bad_value", f"{name} holds a lone surrogate, not text: {found!r:.80}")
    return found


def _means_something(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] in "LN" or category == "So"  # letters, digits, pictographs


def _is_surrogate(character: str) -> bool:
    return 0xD800 <= ord(character) <= 0xDFFF
