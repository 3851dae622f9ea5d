"""What every stage does around its own work: fill the missing shards with a progress bar, and sum up in one
line.
"""

import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from ppt import attempts, ray_actors, rle
from ppt.config import Config, ConfigError, fingerprint
from ppt.durable import ensure, json_lines, json_object, write_atomic
from ppt.engine import Crew, run_shards
from ppt.manifest import Manifest
from ppt.places import Place, place
from ppt.pool import Pool
from ppt.records import images
from ppt.records.images import ImagePolicy
from ppt.report import preview
from ppt.shard import Failure, Shard
from ppt.store import Artifact, StaleArtifact, Writer, begin, begin_share
from ppt.types import Record

C = TypeVar("C")
SOURCE = "source.json"
PREVIEWED = 24
"""Masks in a sheet."""


@dataclass(frozen=True)
class Summary:
    """What a stage did: items it holds, items passed over with their reasons, shards made now and kept from
    before, and what else there is to say.
    """

    stage: str
    items: int
    skipped: int
    made: int
    kept: int
    reasons: dict[str, int] = field(default_factory=dict)
    note: str = ""

    def line(self) -> str:
        """One line for people: "masks: 579 items, 2 skipped (bad_image 2); 12 shards made, 5 kept"."""
        why = ", ".join(f"{name} {count}" for name, count in sorted(self.reasons.items()))
        skipped = f"{self.skipped} skipped" + (f" ({why})" if why else "")
        told = f"{self.stage}: {self.items} items, {skipped}; {self.made} shards made, {self.kept} kept"
        return f"{told}; {self.note}" if self.note else told


def parts(plan: Mapping[str, Sequence[str]], *inputs: Artifact | str) -> dict[str, str]:
    """Shard key -> fingerprint of what it is made of: its shard of each artifact, and all of what else there
    is.
    """
    return {
        key: fingerprint([one if isinstance(one, str) else one.part(key) for one in inputs]) for key in plan
    }


def begun(
    config: Config,
    folder: Place,
    manifest: Manifest,
    plan: Mapping[str, Sequence[str]],
    parts: Mapping[str, str],
    fresh: bool = False,
) -> Writer:
    """The writer of the artifact in `folder`, or of the share of it that the config says. Raises as `begin`,
    and ConfigError where a share should begin afresh: others may be writing theirs.
    """
    if config.share is None:
        return begin(folder, manifest, plan, fresh, parts)
    if fresh:
        raise ConfigError(f"share: cannot begin afresh what others write, too; remove {folder} before")
    return begin_share(folder, manifest, plan, config.share, parts)


def fill(
    writer: Writer, function: Callable[[C, Shard], object], make_context: Callable[[], C], config: Config
) -> tuple[Artifact | None, Summary]:
    """Run `function` on the writer's missing shards, close the artifact, and sum up; of a share alone there
    is no artifact yet.
    """
    stage = writer.manifest.stage
    missing = [replace(shard, seconds=config.item_seconds) for shard in writer.missing]
    items = sum(len(shard.items) for shard in missing)
    crew = crew_of(config) if missing else None
    # A process that dies cannot say on what: where that may have happened, a worker is watched, at the end.
    watched = [shard for shard in missing if crew is None and attempts.suspected(shard)]
    calm = [shard for shard in missing if shard not in watched]
    with (
        _threads(0 if crew else config.threads),
        tqdm(total=items, desc=stage, unit="item", disable=not sys.stderr.isatty(), leave=False) as bar,
    ):
        for shards, doers in ((calm, crew), (watched, Pool(1))):
            # An actor has its cores for itself.
            together = doers.size if doers and config.engine == "local" else 1
            alone = functools.partial(_context_of_one, make_context, together, config.threads)
            run_shards(
                function,
                shards,
                alone if doers else make_context,
                doers,
                on_done=lambda shard, _: bar.update(len(shard.items)),
                deaths=attempts.deaths,
                excuse=attempts.excuse,
                seen=attempts.seen,
            )
    if config.share is not None:
        return None, _summary_of_share(writer, config.share)
    artifact = writer.finish()
    return artifact, summary(artifact, made=len(missing))


def _summary_of_share(writer: Writer, share: tuple[int, int]) -> Summary:
    markers = [done for shard in writer.shards if (done := shard.done()) is not None]
    reasons = Counter(failure["error"] for done in markers for failure in done["failures"])
    failed, made = sum(reasons.values()), len(writer.missing)
    items = sum(len(done["items"]) for done in markers) - failed
    note = f"share {share[0]} of {share[1]}; the same command without --shards closes the stage"
    kept = len(writer.shards) - made
    return Summary(writer.manifest.stage, items, failed, made, kept, dict(reasons), note)


@dataclass(frozen=True)
class Making(Generic[C]):
    """What makes a process's context: here of models that there are already. They do not travel: another
    process, to which this goes, is given None for them and opens its own.
    """

    make: Callable[[Any], C]
    models: Any

    def __call__(self) -> C:
        return self.make(self.models)

    def __reduce__(self) -> tuple[type["Making[C]"], tuple[Callable[[Any], C], None]]:
        return Making, (self.make, None)


def crew_of(config: Config) -> Crew | None:
    """Who does the shards; None for this process. Raises ConfigError where Ray is asked for and not there."""
    if config.in_process:
        return None
    if config.engine == "local":
        return Pool(config.workers)
    ray_actors.connect(config.ray)
    return ray_actors.Cluster(config.ray)


def attempted(
    shard: Shard, stage: str, failures: list[Failure], groups: Mapping[str, list[Record]]
) -> Iterator[tuple[str, list[Record]]]:
    """What `by_content` gave, image by image, less those that killed their workers (`ppt.attempts`)."""
    return attempts.attempted(
        shard, stage, groups.items(), lambda group: [record.pair.id for record in group[1]], failures
    )


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Let torch, where the stage has a use for it, compute with that many threads; 0 changes nothing."""
    torch = sys.modules.get("torch") if number else None
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _context_of_one(make_context: Callable[[], C], workers: int, threads: int) -> C:
    """The context of one of the workers of a machine, with its threads or its share of those there: where all
    workers together have more threads than there are cores, each waits for the others most of the time.
    """
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads or max(1, torch.get_num_threads() // workers))
    return make_context()


def summary(artifact: Artifact, made: int) -> Summary:
    """The summary of a complete artifact, of whose shards `made` were made just now."""
    reasons = Counter(failure.error for failure in artifact.failures())
    index = artifact.index
    kept = len(artifact.keys) - made
    return Summary(
        artifact.manifest.stage, index["items"] - index["failed"], index["failed"], made, kept, dict(reasons)
    )


def remember_source(output: Place, source: dict[str, Any]) -> None:
    """Note in DIR/source.json where the images lie on this machine; no hash and no artifact depends on it."""
    ensure(output / SOURCE, json_lines([source]))


def images_root(config: Config, output: Place) -> Place:
    """The folder that image paths are relative to: that of the pairs file, or what DIR/source.json says."""
    if config.records.pairs is not None and not config.records.sources:
        return config.records.pairs.parent
    source = json_object(output / SOURCE)
    if source is None:
        raise FileNotFoundError(
            f"{output}: no pairs; name them with --set records.pairs=FILE, or run records first"
        )
    return place(source["images"])


def image_policy(config: Config) -> ImagePolicy:
    """The image gate's policy from the `records` section."""
    records = config.records
    return ImagePolicy(records.max_pixels, records.exif, records.alpha, records.follow_links)


@contextmanager
def at_image(image: str) -> Iterator[None]:
    """While the block runs: an error of the machine, such as a lost GPU, says at which image it came."""
    try:
        yield
    except RuntimeError as error:  # torch's of a device are
        raise RuntimeError(
            f"{image}: {error}\n  This was the image in work. Shards made before it are kept, and the same"
            " command goes on from there."
        ) from error


def out_of_memory(stage: str, records: Sequence[Record], error: MemoryError) -> list[Failure]:
    """The failures of an image's records for which there was no memory."""
    image = records[0].pair.image
    return [Failure(stage, r.pair.id, "out_of_memory", f"{image}: {error}") for r in records]


def held_out(records: Artifact, splits: Sequence[str]) -> frozenset[str]:
    """Contents of the images that teach nothing: those that some sentence outside `splits` is about."""
    return frozenset(row["sha256"] for row in records.rows() if row["split"] not in splits)


def by_content(
    records: Artifact, key: str, wanted: Callable[[Record], bool] = lambda _: True
) -> dict[str, list[Record]]:
    """The wanted records of one shard, grouped by image content (sha256) in order of first appearance."""
    grouped: dict[str, list[Record]] = {}
    for record in map(Record.from_json, records.rows(key)):
        if wanted(record):
            grouped.setdefault(record.sha256, []).append(record)
    return grouped


def picture(
    config: Config, output: Place, image: str, sha256: str | None = None
) -> UInt8[np.ndarray, "h w 3"] | None:
    """An image for a preview, as the records stage reads it; None where it is gone, or changed since
    `sha256`.
    """
    try:
        return images.load(images_root(config, output), image, image_policy(config), sha256).pixels
    except images.ImageError:
        return None


def leave_preview(folder: Place, tiles: list[UInt8[np.ndarray, "h w 3"]], captions: list[str]) -> None:
    """Write folder/preview.png, a sheet of tiles six in a row; nothing where there is no tile."""
    if tiles:
        write_atomic(
            folder / "preview.png", preview.encode_png(preview.contact_sheet(tiles, captions, columns=6))
        )


def quality_of(output: Place, labels: Artifact) -> Artifact | None:
    """DIR/quality; None where labels were not judged. Raises StaleArtifact where it is of other labels."""
    if not (output / "quality" / "index.json").exists():
        return None
    found = Artifact.open(output / "quality")
    must_be_of(labels, found)
    return found


def must_be_of(labels: Artifact, made: Artifact) -> None:
    """Raises StaleArtifact where what was `made` of labels is of others than these."""
    if made.manifest.inputs["labels"] != labels.fingerprint:
        raise StaleArtifact(f"{made.folder}: is of other labels; run `ppt {made.manifest.stage}`")


def leave_masks(
    folder: Place, ranked: Sequence[tuple[str, dict[str, Any] | None, str]], config: Config, output: Place
) -> None:
    """Write folder/preview.png, where there is none, of rows (image, mask as stored or None, caption), evenly
    spread over them; images that are gone are left out.
    """
    if (folder / "preview.png").exists():
        return
    tiles, captions = [], []
    for image, stored, caption in ranked[:: max(1, len(ranked) // PREVIEWED)][:PREVIEWED]:
        pixels = picture(config, output, image)
        mask = rle.from_json(stored) if stored else None
        if pixels is None or (mask and pixels.shape[:2] != (mask.height, mask.width)):
            continue
        tiles.append(preview.overlay_mask(pixels, mask) if mask else pixels)
        captions.append(caption)
    leave_preview(folder, tiles, captions)
