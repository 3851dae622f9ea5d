"""Folders that say by their names what is in the images: one thing an image, and a caption file's lines."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ppt.records import jsonlines
from ppt.records.dataset import DataSet, path_of
from ppt.records.images import SUFFIXES
from ppt.records.jsonlines import RowError
from ppt.records.pairs import PairsError, RawRow
from ppt.settings import RecordsConfig, SourceConfig

ENDINGS = frozenset(ending for endings in SUFFIXES.values() for ending in endings)
_WORDNET = re.compile(r"n\d{8}")
CAPTIONS = ("text", "caption")
"""The columns of a metadata.jsonl that a sentence may stand in."""


def classes(source: SourceConfig, records: RecordsConfig) -> DataSet:
    """Object-centric images: those of each folder in `source.path`, under its name, and those beside the
    folders, each under its own.

    The folder n02084071 is what `source.names` says it is, "hot_dog" is a hot dog, red_mug_03.jpg a red mug;
    the sentence is `source.template` with that for its {}. A names file is ImageNet's: lines "n02084071 dog,
    domestic dog", or JSON {"n02084071": "dog"} or {"0": ["n02084071", "dog"]}. Raises PairsError.
    """
    root = path_of(source)
    if not root.is_dir():
        raise PairsError(f"{root} is no folder; name that of the classes in records.sources[].path")
    names = _names(source.names) if source.names else {}
    pairs: list[RawRow] = []
    for folder in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        alone = folder == root
        unnamed = _WORDNET.fullmatch(folder.name) and folder.name not in names and not alone
        for path in _images_in(folder, alone)[: None if alone else source.per_class]:
            known = names.get(folder.name) or spelled(path.stem if alone else folder.name)
            row = {
                "image": path.relative_to(root).as_posix(),
                "text": source.template.replace("{}", known) if known else "",
                "split": source.split,
                "source": "object_centric",
            }
            told = f"{folder.name} is a number of WordNet's; name what it means in records.sources[].names"
            pairs.append((row["image"], RowError("no_name", told) if unnamed else row))
    if not pairs:
        raise PairsError(f"{root}: there is no image in it, nor in its folders")
    return DataSet(root, pairs, [], (source.names,) if source.names else ())


def _images_in(folder: Path, alone: bool) -> list[Path]:
    """Files named as images, sorted; alone: without those in its folders. No file is asked what it is."""
    found: list[Path] = []
    for base, _, names in os.walk(folder):
        found += [Path(base, name) for name in names if Path(name).suffix.lower() in ENDINGS]
        if alone:
            break
    return sorted(found)


def spelled(name: str) -> str:
    """What a file's or folder's name says in words: no underscores, hyphens or number at the end."""
    return re.sub(r"[\s\d()]*$", "", re.sub(r"[_\-]+", " ", name)).strip()


def _names(path: Path) -> dict[str, str]:
    """Folder -> the first of its names."""
    try:
        content = jsonlines.read_bytes(path)
        if path.suffix == ".json":
            found = jsonlines.parse_whole(content)
            rows = [one if isinstance(one, list) else [key, one] for key, one in found.items()]
        else:
            rows = [line.split(None, 1) for line in content.decode().splitlines() if line.strip()]
        return {str(row[0]): spelled(str(row[1]).split(",")[0]) for row in rows}
    except (ValueError, AttributeError, LookupError) as error:
        raise PairsError(
            f"{path} names no classes: expected lines 'n02084071 dog, domestic dog', or JSON ({error})"
        ) from error


def imagefolder(source: SourceConfig, records: RecordsConfig) -> DataSet:
    """Hugging Face's imagefolder: a `metadata.jsonl` with file_name and text or caption, in `source.path` or
    in a folder for each split. Raises PairsError.
    """
    root, pairs = path_of(source), list[RawRow]()
    files = [*root.glob("metadata.jsonl"), *sorted(root.glob("*/metadata.jsonl"))]
    if not files:
        raise PairsError(f"{root}: no metadata.jsonl is there, nor in a folder for a split")
    for path in files:
        split = source.split if path.parent == root else path.parent.name
        if source.splits and split not in source.splits:
            continue
        pairs += _listed(path, path.parent.relative_to(root), split)
    return DataSet(root, pairs, [], tuple(files))


def _listed(path: Path, below: Path, split: str) -> Iterator[RawRow]:
    try:
        lines = list(jsonlines.parse(jsonlines.read_bytes(path)))
    except ValueError as error:
        raise PairsError(f"imagefolder: {error}") from error
    for number, line in lines:
        where = f"{(below / path.name).as_posix()} line {number}"
        yield where, line if isinstance(line, RowError) else _captioned(line, below, split)


def _captioned(line: dict[str, Any], below: Path, split: str) -> dict[str, Any] | RowError:
    name = line.get("file_name")
    text = next((line[column] for column in CAPTIONS if line.get(column) is not None), None)
    if not isinstance(name, str):
        return RowError("bad_value", f"file_name must be text, got {name!r:.80}")
    return {"image": (below / name).as_posix() if below.parts else name, "text": text, "split": split}
