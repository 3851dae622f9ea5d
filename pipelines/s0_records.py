"""Stage 0: the user's pairs and their images, checked; and the truth, locked away.

    ppt records CONFIG.yaml --output DIR

Reads the pairs, images and truth that the `records` section names. Writes DIR/records: one row a pair, one
shard per `shard_size` distinct image contents with all their sentences; and DIR/truth with truth.jsonl:
{"id", "segmentation", "distractors", "ref", "split", "source", "kind"}, sorted by id, for the pairs of this
run, those that failed included.
"""

import functools
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tqdm import tqdm

from pipelines import stage
from pipelines.exits import listed
from ppt import times
from ppt.attempts import attempted
from ppt.config import Config, fingerprint
from ppt.durable import ensure, identity, json_lines, sealed, sealed_object
from ppt.manifest import Manifest
from ppt.places import Place, each
from ppt.records import images, pairs, plan, sources
from ppt.records import truth as truths
from ppt.records.images import ImageError, ImagePolicy
from ppt.records.pairs import PairsError, RawRow, Row
from ppt.shard import Failure, Shard
from ppt.store import PLAN, Artifact, ArtifactError, StaleArtifact, begin, refuse_unwritable
from ppt.types import Record

STAGE = "records"
TRUTH = "truth"
PREVIEWED = 12
LISTED = 5
"""Images named, at most, where a message lists them."""


@dataclass(frozen=True)
class Context:
    """What one process keeps: where and how images are read, the rows of every shard, what each image holds.

    contents: image path -> sha256 of its bytes, None where it cannot be read.
    """

    root: Place
    policy: ImagePolicy
    shards: dict[str, list[Row]]
    contents: dict[str, str | None]


def run(config: Config, output: Place, fresh: bool = False) -> stage.Summary:
    """Make DIR/records complete, and DIR/truth where there is truth.

    Raises ConfigError without pairs, PairsError or TruthError where a file is of no use, and StaleArtifact.
    """
    refuse_unwritable(output)
    found = sources.read(config.records)
    rows = found.rows
    chosen = pairs.select(rows, config.records.splits, config.records.limit)
    if not chosen:
        have = ", ".join(sorted({repr(row.split) for row in rows}))
        named = ", ".join(map(str, found.files)) or found.images
        raise PairsError(
            f"pairs: {named}: no row is of records.splits {config.records.splits}; its splits: {have}"
        )
    root, policy = found.images, stage.image_policy(config)
    contents = _contents(root, policy, chosen)
    chosen = _without_leaks(rows, chosen, contents, config)
    folder = output / STAGE
    former = {} if fresh else sealed_object(folder / PLAN) or {}
    kept = former["shards"] if former.get("shard_size") == config.shard_size else {}
    shards = plan.shards(chosen, contents, config.shard_size, kept)
    manifest = Manifest(
        STAGE,
        schema_version=2,
        config=config.sections(STAGE),
        inputs={"pairs": _identity(found.files), "images": fingerprint(contents)},
        weights={},
        seed=config.seed,
    )
    names = plan.names(chosen)
    planned = {key: [names[row.where] for row in group] for key, group in shards.items()}
    unreadable = [names[row.where] for row in chosen if not (row.pair and contents[row.pair.image])]
    remembered = {"shard_size": config.shard_size, "shards": planned, "unreadable": unreadable}
    _refuse_other_data(folder, former, remembered)
    changes = "" if fresh else _changes(folder, manifest, former, chosen, contents)
    parts = {key: fingerprint([_told(row, contents) for row in group]) for key, group in shards.items()}
    with stage.begun(config, folder, manifest, planned, parts, fresh) as writer:
        ensure(folder / PLAN, sealed(remembered), secrets.token_hex(4))  # others of a share write it, too
        if config.share is None:
            for name in (stage.SOURCE, times.FILE_NAME):  # left by a run that was killed
                (output / f"{name}.tmp").unlink(missing_ok=True)
            stage.remember_source(output, {"images": str(root.resolve())})
        make = functools.partial(Context, root, policy, shards, contents)
        artifact, summary = stage.fill(writer, shard_of_records, make, config)
        summary = replace(summary, note="; ".join(filter(None, [changes, summary.note])))
        if artifact is None:
            return summary
        if not (artifact.folder / "preview.png").exists():
            _preview(artifact, config, output)
    if found.truth is None:
        return summary
    refused = _lock_away(found.truth, artifact, rows, chosen, config, fresh)
    reasons = {f"{TRUTH}:{error}": count for error, count in refused.reasons.items()}
    return replace(summary, skipped=summary.skipped + refused.skipped, reasons={**summary.reasons, **reasons})


def _refuse_other_data(folder: Place, former: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises StaleArtifact where most of what could be read is gone: then a folder that is in use was given
    other data, or the images have gone out of reach.
    """
    before, there = _readable(former), _readable(now)
    gone = len(before - there)
    if 2 * gone > len(before):
        raise StaleArtifact(
            f"{folder}: of the {len(before)} pairs that it was made of, {gone} are gone or their images"
            " cannot be read; bring them back, choose another folder for other data, or pass --fresh to start"
            " over"
        )


def _readable(remembered: Mapping[str, Any]) -> set[str]:
    return plan.everyone(remembered.get("shards", {})).difference(remembered.get("unreadable", ()))


def _changes(
    folder: Place,
    manifest: Manifest,
    former: Mapping[str, Any],
    chosen: Sequence[Row],
    contents: dict[str, str | None],
) -> str:
    """What became of images and pairs since the records in `folder`, for people; those that could be read and
    failed all the same are left out.
    """
    try:
        before = Artifact.open(folder)
        if before.manifest == manifest:
            return ""
        rows = list(before.rows())
    except ArtifactError:
        return ""
    images = {row["image"]: row["sha256"] for row in rows}
    failed = {failure.id for failure in before.failures()}.difference(former.get("unreadable", ()))
    pairs = [row.pair for row in chosen if row.pair and row.id not in failed and contents[row.pair.image]]
    now = {pair.image: contents[pair.image] for pair in pairs}
    kinds = {
        "images changed": [image for image, sha256 in now.items() if images.get(image, sha256) != sha256],
        "images added": sorted(now.keys() - images.keys()),
        "images removed": sorted(images.keys() - now.keys()),
    }
    named = [f"{kind}: {len(some)} ({listed(some, LISTED)})" for kind, some in kinds.items() if some]
    ids, ids_now = {row["id"] for row in rows}, {pair.id for pair in pairs}
    counts = {"pairs added": len(ids_now - ids), "pairs removed": len(ids - ids_now)}
    return "; ".join([*named, *(f"{kind}: {count}" for kind, count in counts.items() if count)])


def _told(row: Row, contents: dict[str, str | None]) -> list[Any]:
    """What the records say of a row; where it stands is no part of that but for one without a pair."""
    if row.pair is None:
        return [row.where, row.id, row.error, row.message]
    return [asdict(row.pair), contents[row.pair.image]]


def _identity(files: Sequence[Place]) -> str:
    """sha256 of a file's bytes; of several, or none, one of all of them in their order."""
    each = [identity(path.read_bytes())["sha256"] for path in files]
    return each[0] if len(each) == 1 else fingerprint(each)


def _without_leaks(
    rows: Sequence[Row], chosen: list[Row], contents: dict[str, str | None], config: Config
) -> list[Row]:
    """The rows, with those refused that would teach about an image that is evaluated on. Raises PairsError
    where there are such and the config does not say to drop them.

    Of the user's own pairs alone nothing is refused: such an image teaches nothing, whatever is said of it.
    """
    if not config.records.sources:
        return chosen
    teaching = {*config.generator.splits, *config.segmenter.splits}
    leaked = sources.leaks(rows, chosen, contents, teaching)
    if leaked and not config.records.drop_leaks:
        shown = listed(sorted(leaked), LISTED)
        raise PairsError(
            f"pairs: {len(leaked)} images are taught about (splits {sorted(teaching)}) and evaluated on: "
            f"{shown}; leave their teaching pairs out with --drop-leaks, or mend the splits"
        )
    return sources.without(chosen, leaked)


def shard_of_records(context: Context, shard: Shard) -> None:
    """Write one shard: every image content decoded once, a row for each of its sentences."""
    records, failures = [], []
    by_content: dict[str, list[Row]] = {}
    for row, item in zip(context.shards[shard.key], shard.items, strict=True):
        if row.pair is None:
            failures.append(Failure(STAGE, item, row.error, row.message))
        else:
            by_content.setdefault(plan.content(row.pair.image, context.contents), []).append(row)
    groups = ([row.pair for row in group if row.pair is not None] for group in by_content.values())
    for found in attempted(shard, STAGE, groups, lambda group: [pair.id for pair in group], failures):
        image = found[0].image
        try:
            loaded = images.load(context.root, image, context.policy, context.contents[image])
        except ImageError as error:
            failures += [Failure(STAGE, pair.id, error.error, error.message) for pair in found]
            continue
        height, width, _ = loaded.pixels.shape
        records += [Record(pair, loaded.sha256, height, width, loaded.flags_as(pair.image)) for pair in found]
    shard.write([record.to_json() for record in records], None, failures)


def _contents(root: Place, policy: ImagePolicy, rows: Sequence[Row]) -> dict[str, str | None]:
    """sha256 of every distinct image, in order of first appearance; None where it cannot be read."""
    names = list(dict.fromkeys(row.pair.image for row in rows if row.pair is not None))
    found = each(functools.partial(_content, root, policy), names, root)
    with tqdm(
        found, total=len(names), desc="hashing", unit="image", disable=not sys.stderr.isatty(), leave=False
    ) as bar:
        return dict(zip(names, bar, strict=True))


def _content(root: Place, policy: ImagePolicy, image: str) -> str | None:
    try:
        return images.digest(root, image, policy)
    except ImageError:
        return None  # the shard that holds it says why


def _lock_away(
    raw: list[RawRow],
    records: Artifact,
    rows: Sequence[Row],
    chosen: Sequence[Row],
    config: Config,
    fresh: bool,
) -> stage.Summary:
    """Write DIR/truth beside DIR/records: every mask of this run's pairs, those that failed included."""
    sizes: dict[str, tuple[int, int] | None] = {
        row.id: None for row in chosen if row.id and row.error != sources.LEAK
    }
    sizes.update({row["id"]: (row["height"], row["width"]) for row in records.rows()})
    once = config.records.overlap == "once"
    found, refused = truths.checked(raw, sizes, {row.id for row in rows} - sizes.keys(), once)
    groups = {row.id: row for row in sorted(chosen, key=lambda row: row.pair is not None)}  # pairs win
    kept = [
        {**truth.to_json(), "split": row.split, "source": row.source, "kind": row.kind}
        for truth in found
        for row in (groups[truth.id],)
    ]
    failures = [Failure(TRUTH, row.where, row.error, row.message) for row in refused]
    manifest = Manifest(
        TRUTH,
        schema_version=1,
        config={},
        inputs={
            "truth": fingerprint(kept, [failure.message for failure in failures]),
            "records": records.fingerprint,
        },
        weights={},
        seed=config.seed,
    )
    items = [truth.id for truth in found] + [row.where for row in refused]
    planned = {"00000": items}
    parts = stage.parts(planned, *manifest.inputs.values())
    with begin(records.folder.parent / TRUTH, manifest, planned, fresh, parts) as writer:
        for shard in writer.missing:
            shard.write(kept, None, failures)
        artifact = writer.finish()
        ensure(artifact.folder / "truth.jsonl", json_lines(kept))
    return stage.summary(artifact, made=len(writer.missing))


def _preview(artifact: Artifact, config: Config, output: Place) -> None:
    """preview.png: the first images under one of their sentences."""
    tiles, captions = [], []
    for record, *_ in list(stage.by_content(artifact, artifact.keys[0]).values())[:PREVIEWED]:
        pixels = stage.picture(config, output, record.pair.image, record.sha256)
        if pixels is not None:
            tiles.append(pixels)
            captions.append(record.pair.text)
    stage.leave_preview(artifact.folder, tiles, captions)
