"""What every reader of a data set gives: rows such as a PAIRS file has, and rows such as a TRUTH file has."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppt.records.pairs import PairsError, RawRow


@dataclass(frozen=True)
class DataSet:
    """A data set as it was found. images: the folder that image paths are relative to. pairs, truth: rows, as
    `pairs.checked` and `truth.checked` take them, by where they stand; the truth is of those that have one.
    files: those that were read.
    """

    images: Path
    pairs: list[RawRow]
    truth: list[RawRow]
    files: tuple[Path, ...]


def json_file(path: Path, what: str) -> Any:
    """The JSON of a file. Raises PairsError saying what it should have been."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise PairsError(f"{path} is not there; it should hold {what}") from None
    except OSError as error:
        raise PairsError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise PairsError(f"{path} is not JSON; it should hold {what}: {error}") from error


def rows_of(value: Any, key: str, path: Path) -> list[dict[str, Any]]:
    """The list of objects under a key of a JSON object, or the value itself where the key is "".

    Raises PairsError where there is none.
    """
    found = value.get(key) if key and isinstance(value, Mapping) else value
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        named = f"under {key!r} " if key else ""
        raise PairsError(f"{path}: expected a list of objects {named}got {type(found).__name__}")
    return found


def folder_of(given: Path | None, usual: Path, option: str) -> Path:
    """The folder of the images: the one that is given, or where the layout has it. Raises PairsError."""
    folder = given or usual
    if not folder.is_dir():
        raise PairsError(f"{folder} is no folder; name that of the images in {option}")
    return folder
