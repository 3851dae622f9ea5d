"""Is the data what it should be? Counts beside the published ones, files that are missing, texts, pictures.

    ppt data check CONFIG.yaml [--output PICTURE.png]

Reads what the `records` section names, and of the images no more than whether they are there, but for a few
that are drawn. Trains nothing, and writes nothing but the picture.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines import stage
from pipelines.exits import listed
from ppt.config import Config
from ppt.durable import write_atomic
from ppt.records import images, sources
from ppt.records.dataset import DataSet
from ppt.records.jsonlines import RowError
from ppt.records.published import SIZES
from ppt.report import preview
from ppt.seeding import generator
from ppt.settings import SourceConfig
from ppt.types import Pair

LISTED = 5
PICTURED = 24
LONG = 50
"""Words beyond which a sentence may not fit CLIP's 77 tokens."""


def check(config: Config, picture: Path | None) -> Iterator[tuple[str, bool]]:
    """What there is to say, line by line, and whether it is well. Raises as `sources.read`."""
    sources.check_named(config.records)
    each = sources.each(config.records)
    for source, own in each:
        yield from _counted(source, own)
    found = sources.together(config.records, [own for _, own in each])
    yield from _judged(found, config)
    if picture is not None:
        drawn = _draw(found, config, picture)
        yield f"{drawn} pictures in {picture}", drawn > 0


def _counted(source: SourceConfig, found: DataSet) -> Iterator[tuple[str, bool]]:
    """A line for the source and one for each split."""
    by_split: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for _, row in found.pairs:
        if not isinstance(row, RowError):
            by_split[str(row.get("split") or "")].append(row)
    name = f"{source.path.name} ({source.by})" if source.format == "refer" else source.format
    yield f"{name}: {source.path}, images in {found.images}", True
    for split, rows in by_split.items():
        refs = len({row.get("ref", row.get("id", at)) for at, row in enumerate(rows)})
        pictures = len({row.get("image") for row in rows})
        line = f"  {split or '(no split)':<10} {refs} refs, {len(rows)} sentences, {pictures} images"
        known = SIZES.get(name, {}).get(split)
        if known is not None:
            told = "as published" if known == (refs, pictures) else f"published: {known[0]} and {known[1]}"
            line += f" ({told})"
        yield line, known in (None, (refs, pictures))
    lost = [split for split in SIZES.get(name, {}) if split not in by_split]
    if lost and not source.splits:
        yield f"  no {', '.join(lost)}: the published set has it", False


def _judged(found: sources.Sources, config: Config) -> Iterator[tuple[str, bool]]:
    """Of all sources together: rows that are refused, images that are missing, lengths, truth, leaks."""
    good = [row.pair for row in found.rows if row.pair is not None]
    refused = Counter(row.error for row in found.rows if row.pair is None)
    if refused:
        why = ", ".join(f"{error} {count}" for error, count in sorted(refused.items()))
        first = next(row.message for row in found.rows if row.pair is None)
        yield f"{sum(refused.values())} rows are refused ({why}), the first: {first}", False
    names = dict.fromkeys(pair.image for pair in good)
    missing = [name for name, size in images.sizes(found.images, names).items() if size is None]
    shown = listed(missing, LISTED)
    yield f"{len(names)} images, {len(missing)} missing{': ' if missing else ''}{shown}", not missing
    lengths = sorted(len(pair.text.split()) for pair in good)
    if lengths:
        long = sum(length > LONG for length in lengths)
        middle, most = lengths[len(lengths) // 2], lengths[-1]
        yield f"{len(good)} sentences of {lengths[0]} to {most} words, {middle} in the middle", True
        if long:
            yield f"{long} sentences have more than {LONG} words: CLIP may not read their ends", True
    yield f"{'no' if found.truth is None else len(found.truth)} true masks", True
    teaching = {*config.generator.splits, *config.segmenter.splits}
    leaked = sources.leaks(found.rows, found.rows, {}, teaching)
    if leaked:
        told = ", ".join(sorted(leaked)[:LISTED])
        yield f"{len(leaked)} images are taught about and evaluated on, by name: {told}", False


def _draw(found: sources.Sources, config: Config, picture: Path) -> int:
    """A sheet of some pairs, each split alike."""
    by_split: dict[str, list[Pair]] = defaultdict(list)
    for row in found.rows:
        if row.pair is not None:
            by_split[row.split].append(row.pair)
    tiles, captions = [], []
    for split, pairs in by_split.items():
        order = generator(config.seed, "data check", split).permutation(len(pairs))
        for pair in (pairs[i] for i in order[: max(1, PICTURED // len(by_split))]):
            try:
                pixels = images.load(found.images, pair.image, stage.image_policy(config)).pixels
            except images.ImageError:
                continue
            tiles.append(pixels)
            captions.append(f"{split}: {pair.text}" if split else pair.text)
    if tiles:
        picture.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(picture, preview.encode_png(preview.contact_sheet(tiles, captions, columns=6)))
    return len(tiles)
