"""WebDataset's shards of pairs: tars in which the files of a sample share their name up to its first dot."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ppt.records import tar_members
from ppt.records.dataset import DataSet, path_of
from ppt.records.folders import CAPTIONS, ENDINGS
from ppt.records.jsonlines import RowError, parse_whole
from ppt.records.pairs import PairsError, RawRow
from ppt.records.tar_members import TarError
from ppt.settings import RecordsConfig, SourceConfig

TEXTS = ("txt", "caption", "text")
MAX_TEXT = 2**20  # bytes


def read(source: SourceConfig, records: RecordsConfig) -> DataSet:
    """The samples of `source.path`, a tar or a folder of them: an image, and a sentence in .txt, .caption or
    .text, or in .json under text or caption. Nothing else is opened, pickles least of all. Raises PairsError.
    """
    path = path_of(source)
    shards = [path] if path.is_file() else sorted(path.glob("*.tar"))
    if not shards:
        raise PairsError(f"{path}: there is no .tar in it; one that is compressed must be unpacked first")
    pairs = [row for shard in shards for row in _samples(shard, source.split)]
    return DataSet(path.parent if path.is_file() else path, pairs, [], tuple(shards))


def _samples(shard: Path, split: str) -> Iterator[RawRow]:
    samples: dict[str, dict[str, str]] = {}
    try:
        for name in tar_members.members(shard):
            base = PurePosixPath(name)
            stem, _, ending = base.name.partition(".")
            samples.setdefault(str(base.with_name(stem)), {})[ending.lower()] = name
        file = os.open(shard, os.O_RDONLY)
    except (TarError, OSError) as error:
        raise PairsError(f"webdataset: {error}") from error
    try:
        for key, parts in samples.items():
            image = next((name for ending, name in parts.items() if f".{ending}" in ENDINGS), None)
            if image is None and not {*TEXTS, "json"} & parts.keys():
                continue  # a sample of something else
            where = f"{shard.name}/{key}"
            try:
                text = _text(file, shard, parts)
            except RowError as error:
                yield where, error
            else:
                name = None if image is None else f"{shard.name}/{image}"
                yield where, {"id": where, "image": name, "text": text, "split": split}
    finally:
        os.close(file)


def _text(file: int, shard: Path, parts: dict[str, str]) -> Any:
    """What a sample says; None where it says nothing."""
    ending = next((one for one in (*TEXTS, "json") if one in parts), None)
    if ending is None:
        return None
    if tar_members.members(shard)[parts[ending]][1] > MAX_TEXT:
        raise RowError("bad_value", f"{parts[ending]} is longer than {MAX_TEXT} bytes")
    try:
        content = tar_members.content(file, shard, parts[ending])
        if ending != "json":
            return content.decode().strip()
        found = parse_whole(content)
        return next((found[name] for name in CAPTIONS if found.get(name) is not None), None)
    except (ValueError, AttributeError) as error:
        raise RowError("bad_value", f"{parts[ending]} holds no sentence: {error}") from error
