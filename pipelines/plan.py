"""What a run would do, without doing it: items, shards, bytes on disk, and what is done already."""

from collections.abc import Iterator
from pathlib import Path

from ppt.config import Config
from ppt.durable import json_object
from ppt.records import pairs

BYTES_PER_CELL = 2 * 512
CELLS = 20 * 24
BYTES_PER_CANDIDATE = 600
BYTES_PER_MOSAIC = BYTES_PER_CELL * CELLS + 6 * 4 * CELLS
BYTES_PER_STEP = 200
STAGES = ("records", "relevance", "masks", "labels")


def describe(config: Config, output: Path) -> Iterator[str]:
    """The plan, line by line. Reads the pairs file and the markers of finished shards; opens no image, loads
    no model.

    Bytes are estimates: a 20 x 24 grid of 512 half floats an image, 600 bytes a mask.
    """
    assert config.records.pairs is not None
    rows = pairs.read(config.records.pairs)
    chosen = pairs.select(rows, config.records.splits, config.records.limit)
    good = [row.pair for row in chosen if row.pair is not None]
    names = {pair.image for pair in good}
    shards = -(-len(names) // config.shard_size)
    read = sum(_size(config.records.pairs.parent / name) for name in names)
    refused = len(chosen) - len(good)
    yield f"pairs      {config.records.pairs}: {len(rows)} rows, {len(good)} to do, {refused} refused"
    files = f"{len(names)} files, {_human(read)} to read"
    yield f"images     {files}, {shards} shards of {config.shard_size} images"
    wanted = {
        "records": 300 * len(good),
        "relevance": len(names) * CELLS * BYTES_PER_CELL + len(good) * CELLS * 4,
        "masks": len(good) * 3 * BYTES_PER_CANDIDATE,
        "labels": len(good) * BYTES_PER_CANDIDATE * 2,
    }
    if config.points.method == "generator":
        how = config.generator
        size = _human(how.mosaics * BYTES_PER_MOSAIC)
        done = _trained(output / "points")
        yield f"points     {how.steps} steps of {how.batch}, {how.mosaics} mosaics, about {size}: {done}"
    for stage in STAGES:
        state = _state(output / stage, shards)
        yield f"{stage:<10} {len(good)} items, about {_human(wanted[stage])}: {state}"
    if config.with_segmenter:
        how = config.segmenter
        log, done = f"about {_human(how.steps * BYTES_PER_STEP)} and weights", _trained(output / "segmenter")
        yield f"segmenter  {how.steps} steps of {how.accumulate * how.batch}, {log}: {done}"
        size = _human(len(good) * BYTES_PER_CANDIDATE)
        yield f"predictions {len(good)} items, about {size}: {_state(output / 'predictions', shards)}"
    truth = config.records.truth
    yield f"evaluate   {'against ' + str(truth) if truth else 'skipped: no truth given'}"


def _state(folder: Path, shards: int) -> str:
    done = len(list(folder.glob("shards/*.done.json")))
    if json_object(folder / "index.json") is not None:
        return f"complete, {done} shards (checked against the config when run)"
    return f"{done} of {shards} shards done" if done else "to do"


def _trained(folder: Path) -> str:
    return "complete" if json_object(folder / "index.json") is not None else "to do"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:  # a name no file system takes; the records stage says so
        return 0


def _human(count: int) -> str:
    size = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
