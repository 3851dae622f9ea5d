"""Strict JSON, one object a line or a whole file: UTF-8, no byte order mark, no duplicate keys, no NaN.

A bad line is one bad line: its number and what is wrong with it are given, and the rest is read.
"""

import json
from collections.abc import Iterable, Iterator
from json import decoder, scanner
from typing import Any

from ppt.places import Place

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class RowError(ValueError):
    """One row that cannot be used: `error` is a short code to count by, the text says what is wrong."""

    def __init__(self, error: str, message: str) -> None:
        super().__init__(message)
        self.error = error


def read_bytes(path: Place) -> bytes:
    """The bytes of a file the user named. Raises ValueError when it is no readable regular file, or blank."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a regular file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    if not content.strip():
        raise ValueError(f"{path} is empty")
    return content


def parse(content: bytes) -> Iterator[tuple[int, dict[str, Any] | RowError]]:
    """(line number from 1, object or why it is refused) for every line that is not blank."""
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            try:
                yield number, _parse_line(line)
            except RowError as error:
                yield number, error


def text_id(value: Any) -> str:
    """A row's id as text; whole numbers are taken as written. Raises RowError for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise RowError("bad_value", f"id must be text, got {value!r:.80}")


def parse_whole(content: bytes) -> Any:
    """The one JSON value that a file holds. Raises RowError, which says on which line it breaks a rule."""
    try:
        return _value(content)
    except RowError as error:
        line = None if error.__cause__ else _line_of_refusal(content)  # json itself says where
        raise error if line is None else RowError(error.error, f"line {line}: {error}") from error


def _parse_line(line: bytes) -> dict[str, Any]:
    value = _value(line)
    if not isinstance(value, dict):
        raise RowError("bad_json", f"expected a JSON object, got {type(value).__name__}")
    return value


def _value(content: bytes) -> Any:
    if content.startswith(BYTE_ORDER_MARK):
        raise RowError("byte_order_mark", "begins with a byte order mark; save the file as plain UTF-8")
    try:
        text = content.decode("utf-8")
        return json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
    except RowError:
        raise
    except UnicodeDecodeError as error:
        raise RowError("bad_utf8", f"byte {error.start + 1} is not UTF-8") from error
    except RecursionError as error:
        raise RowError("bad_json", "the JSON is nested too deeply") from error
    except ValueError as error:
        raise RowError("bad_json", f"not JSON: {error}") from error


def _line_of_refusal(content: bytes) -> int | None:
    """The line on which the object begins that breaks our rules, None where that cannot be told. json's own
    scanner, which is in C, does not tell; that in Python is slow, and read again with only to say so.
    """
    text, begun = content.decode(), [0]

    def placed(state: tuple[str, int], *rest: Any) -> Any:
        begun.append(state[1])
        found = decoder.JSONObject(state, *rest)  # pyright: ignore[reportAttributeAccessIssue]
        begun.pop()
        return found

    reader: Any = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
    reader.parse_object = placed
    try:
        scanner.py_make_scanner(reader)(text, len(text) - len(text.lstrip()))  # pyright: ignore
    except RowError:
        return text.count("\n", 0, begun[-1]) + 1
    except (StopIteration, RecursionError):
        return None
    return None


def _without_duplicates(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in items:
        if key in result:
            raise RowError("duplicate_key", f"key {key!r:.80} appears twice")
        result[key] = value
    return result


def _refuse_constant(name: str) -> Any:
    raise RowError("bad_json", f"{name} is not JSON; write null or a number")
