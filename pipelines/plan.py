"""What a run would do, without doing it: items, bytes, operations, hours; what is done, what is missing."""

import shutil
from collections.abc import Iterator, Sequence

from pipelines.costs import HEIGHT, WIDTH, Costs, count
from pipelines.exits import listed
from ppt.backbones.clip import find_clip
from ppt.backbones.cost import measured_rate
from ppt.backbones.sam import find_sam
from ppt.backbones.weights import WeightsError
from ppt.config import Config
from ppt.durable import json_object, sealed_object
from ppt.places import Place, Remote
from ppt.records import images, pairs, sources
from ppt.records import plan as planning
from ppt.store import PLAN
from ppt.times import spoken
from ppt.types import Pair

BYTES_PER_ROW = 300
BYTES_PER_CANDIDATE = 600
BYTES_PER_STEP = 200
BYTES_PER_SHARD = 700
"""In an index: the names, sizes and hashes of its files."""
FAST = 1e9
"""Bytes a second of a storage that many workers share."""
LISTED = 3
SETTINGS = {"points": "generator", "segmenter": "segmenter"}
"""The section of the config that says how a stage trains."""


def describe(config: Config, output: Place) -> Iterator[str]:
    """The plan, line by line. Reads the pairs and the markers of finished shards; opens no image and no
    weights. Raises as `sources.read`, and WeightsError for a model that is not known.

    Operations are counted on an image of 480 x 640 pixels and a short sentence, and hours are those at the
    rate that this machine has just now on a block of a transformer: reading, writing and all else than the
    networks come on top. Bytes of masks are estimates, 600 each.
    """
    found = sources.read(config.records)
    chosen = pairs.select(found.rows, config.records.splits, config.records.limit)
    good = [row.pair for row in chosen if row.pair is not None]
    names = dict.fromkeys(pair.image for pair in good)
    shards = -(-len(names) // config.shard_size)
    sizes = images.sizes(found.images, names)
    refused = len(chosen) - len(good)
    named = ", ".join(map(str, found.files)) or found.images
    yield f"pairs       {named}: {len(found.rows)} rows, {len(good)} to do, {refused} refused"
    to_read = sum(size or 0 for size in sizes.values())
    files = f"{len(names)} files, {_human(to_read)} to read"
    yield f"images      {files}, {shards} shards of {config.shard_size} images"
    yield from _changed(output / "records", chosen)
    costs, rate = count(config, good), measured_rate(config.device)
    kept = _bytes(config, good, len(names), costs)
    for stage in kept:
        trained = stage in ("points", "segmenter")
        state = _trained(output / stage) if trained else _state(output / stage, shards)
        operations = costs.operations.get(stage, 0.0)
        work = f", {_operations(operations)}, {spoken(operations / rate)}" if operations else ""
        steps = f"{getattr(config, SETTINGS[stage]).steps} steps" if trained else f"{len(good)} items"
        yield f"{stage:<12}{steps}, about {_human(kept[stage])}{work}: {state}"
    told = "skipped: no truth given" if found.truth is None else f"against {len(found.truth)} true masks"
    yield f"evaluate    {told}"
    yield from _in_all(config, output, costs, rate, sum(kept.values()), len(names))
    moved = to_read * _reads(config) + 2 * sum(kept.values())
    alone = costs.steps / rate
    shared = (sum(costs.operations.values()) - _spared(config, costs)) / rate - alone
    yield from _on_many(good, shards, shared, alone, moved)
    yield from _missing(config, [name for name, size in sizes.items() if size is None])


def _bytes(config: Config, good: list[Pair], images: int, costs: Costs) -> dict[str, float]:
    """What each stage leaves on the disk, in the order of the stages."""
    sets = config.points.sets if config.points.method == "generator" else 1
    kept: dict[str, float] = {
        "records": BYTES_PER_ROW * len(good),
        "relevance": images * costs.features + len(good) * costs.cells * 4,
    }
    if config.points.method == "generator":
        kept["points"] = config.generator.mosaics * (costs.features + 24 * costs.cells)
    kept["masks"] = len(good) * sets * 3 * BYTES_PER_CANDIDATE
    kept["labels"] = len(good) * BYTES_PER_CANDIDATE * 2
    if config.with_segmenter:
        kept["segmenter"] = config.segmenter.steps * BYTES_PER_STEP
        kept["predictions"] = len(good) * BYTES_PER_CANDIDATE
    if config.views.ask:
        kept["views"] = len(good) * BYTES_PER_ROW / 3
    kept["quality"] = len(good) * BYTES_PER_ROW
    return kept


def _in_all(
    config: Config, output: Place, costs: Costs, rate: float, kept: float, images: int
) -> Iterator[str]:
    again, size = costs.looks - costs.pictures, costs.pictures * costs.embedding
    room = config.embeddings_gib * 2**30
    total, seeing, spared = sum(costs.operations.values()), again * costs.seeing, _spared(config, costs)
    whole = total - spared
    here = f"{rate / 1e9:,.0f} GFLOP/s, measured here just now ({config.device}, float32)"
    assumed = f"images of {HEIGHT} x {WIDTH} pixels"
    yield f"in all      {_operations(whole)}: {spoken(whole / rate)} at {here}; {assumed}"
    kept += min(size, room)
    yield f"disk        about {_human(kept)} to keep, {_room(output, kept)}"
    if again:
        mirrored = f" and {costs.pictures - images} mirror images" if costs.pictures > images else ""
        saved = spared or seeing
        share = f"{saved / total:.0%}, {spoken(saved / rate)}" if total else "nothing"
        seen = f"{costs.looks} looks of SAM at {images} images{mirrored}"
        keeping = f"keeping {_human(min(size, room) if room else size)} of embeddings"
        yield f"cache       {seen}; {keeping} {'saves' if room else 'would save'} {share}"


def _spared(config: Config, costs: Costs) -> float:
    """Operations that keeping what SAM saw of images saves."""
    again, size = costs.looks - costs.pictures, costs.pictures * costs.embedding
    return again * costs.seeing * min(1.0, config.embeddings_gib * 2**30 / size) if again else 0.0


def _reads(config: Config) -> int:
    """How often a whole run reads an image."""
    looked_at = bool({"mirrored", "smaller"} & set(config.views.ask))
    generated = config.points.method == "generator"
    return 3 + generated + looked_at + (2 if config.with_segmenter else 0)


def _on_many(good: list[Pair], shards: int, shared: float, alone: float, moved: float) -> Iterator[str]:
    """How far more workers help. shared, alone: seconds of what they share and of what they do not. moved:
    bytes read and written by all of them.
    """
    if not good:
        return
    index = sum(len(pair.id) + 3 for pair in good) + shards * BYTES_PER_SHARD
    most = f"{shards}, the most that have work, take {spoken(shared / shards + alone)}"
    trained = f", {spoken(alone)} of it trainings' steps" if alone else ""
    yield f"workers     1 takes {spoken(shared + alone)}{trained}; {most}"
    files = f"{3 * shards} files and an index of {_human(index)} a stage"
    yield f"shards      {spoken(shared / shards)} of one worker each; {files}"
    feeds = f"storage of {_human(FAST)}/s feeds {FAST * shared / moved:,.0f}, more of them wait for it"
    yield f"storage     a worker moves {_human(moved / shared)}/s: {feeds}"


def _room(output: Place, kept: float) -> str:
    """Whether there is room for so many bytes."""
    if isinstance(output, Remote):
        return f"in {output}"
    folder = next(one for one in (output.resolve(), *output.resolve().parents) if one.exists())
    free = shutil.disk_usage(folder).free
    return f"{_human(free)} free at {folder}: {'enough' if kept < free else 'NOT ENOUGH'}"


def _missing(config: Config, lost: list[str]) -> Iterator[str]:
    if lost:
        shown = listed(lost, LISTED)
        yield f"missing     {len(lost)} images: {shown}"
    for name, find, section in (("clip", find_clip, config.clip), ("sam", find_sam, config.sam)):
        try:
            find(section.model, section.weights)
        except WeightsError as error:
            yield f"missing     weights of {name} {section.model}: {error}"


def _changed(records: Place, chosen: Sequence[pairs.Row]) -> Iterator[str]:
    remembered = sealed_object(records / PLAN)
    before = planning.everyone(remembered["shards"]) if remembered else set[str]()
    now = set(planning.names(chosen).values())
    if before and before != now:
        told = f"{len(now - before)} pairs are new, {len(before - now)} gone"
        yield f"changed     {told}: their shards are made anew"


def _state(folder: Place, shards: int) -> str:
    done = len(list(folder.glob("shards/*.done.json")))
    if json_object(folder / "index.json") is not None:
        return f"complete, {done} shards (checked against the config when run)"
    return f"{done} of {shards} shards done" if done else "to do"


def _trained(folder: Place) -> str:
    return "complete" if json_object(folder / "index.json") is not None else "to do"


def _operations(number: float) -> str:
    for unit, size in (("PFLOP", 1e15), ("TFLOP", 1e12)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number / 1e9:.0f} GFLOP"


def _human(number: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
