"""Stage 0: the user's pairs and their images, checked; and the truth, locked away.

    ppt records CONFIG.yaml --output DIR

Reads the pairs, images and truth that the `records` section names. Writes DIR/records: one row a pair, one
shard per `shard_size` distinct image contents with all their sentences; and DIR/truth with truth.jsonl:
{"id", "segmentation", "distractors", "ref", "split", "source", "kind"}, sorted by id, for the pairs of this
run, those that failed included.
"""

import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tqdm import tqdm

from pipelines import stage
from pipelines.exits import listed
from ppt import times
from ppt.attempts import attempted
from ppt.config import Config, fingerprint
from ppt.durable import ensure, identity, json_lines
from ppt.manifest import Manifest
from ppt.places import Place, each
from ppt.records import images, pairs, plan, sources
from ppt.records import truth as truths
from ppt.records.images import ImageError, ImagePolicy
from ppt.records.pairs import PairsError, RawRow, Row
from ppt.shard import Failure, Shard
from ppt.store import Artifact, ArtifactError, StaleArtifact, Writer, begin, refuse_unwritable
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
    shards = plan.shards(chosen, contents, config.shard_size)
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
    with _begun(config, output / STAGE, manifest, planned, fresh, chosen, contents) as writer:
        if config.share is None:
            for name in (stage.SOURCE, times.FILE_NAME):  # left by a run that was killed
                (output / f"{name}.tmp").unlink(missing_ok=True)
            stage.remember_source(output, {"images": str(root.resolve())})
        make = functools.partial(Context, root, policy, shards, contents)
        artifact, summary = stage.fill(writer, shard_of_records, make, config)
        if artifact is None:
            return summary
        if not (artifact.folder / "preview.png").exists():
            _preview(artifact, config, output)
    if found.truth is None:
        return summary
    refused = _lock_away(found.truth, artifact, rows, chosen, config, fresh)
    reasons = {f"{TRUTH}:{error}": count for error, count in refused.reasons.items()}
    return replace(summary, skipped=summary.skipped + refused.skipped, reasons={**summary.reasons, **reasons})


def _begun(
    config: Config,
    folder: Place,
    manifest: Manifest,
    planned: dict[str, list[str]],
    fresh: bool,
    chosen: Sequence[Row],
    contents: dict[str, str | None],
) -> Writer:
    """The writer of the artifact; a refusal also says which images are others than they were."""
    try:
        return stage.begun(config, folder, manifest, planned, fresh)
    except StaleArtifact as error:
        raise StaleArtifact("\n  ".join([str(error), *_other_images(folder, chosen, contents)])) from None


def _other_images(folder: Place, chosen: Sequence[Row], contents: dict[str, str | None]) -> list[str]:
    """What became of the images since the records in `folder`, a line a kind; those that failed then are
    left out.
    """
    try:
        before = Artifact.open(folder)
        known = {row["image"]: row["sha256"] for row in before.rows()}
    except ArtifactError:
        return []
    names, failed = plan.names(chosen), {failure.id for failure in before.failures()}
    now = {
        row.pair.image: sha256
        for row in chosen
        if row.pair and names[row.where] not in failed and (sha256 := contents[row.pair.image]) is not None
    }
    kinds = {
        "changed": [image for image, sha256 in now.items() if known.get(image, sha256) != sha256],
        "added": sorted(now.keys() - known.keys()),
        "removed": sorted(known.keys() - now.keys()),
    }
    return [f"images {kind}: {len(some)} ({listed(some, LISTED)})" for kind, some in kinds.items() if some]


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
    with begin(records.folder.parent / TRUTH, manifest, {"00000": items}, fresh) as writer:
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
