"""What every stage does around its own work: fill the missing shards with a progress bar, and sum up in one
line.
"""

import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from ppt import rle
from ppt.config import Config
from ppt.durable import ensure, json_lines, json_object, write_atomic
from ppt.engine import run_shards
from ppt.places import Place, place
from ppt.records import images
from ppt.records.images import ImagePolicy
from ppt.report import preview
from ppt.shard import Shard
from ppt.store import Artifact, StaleArtifact, Writer
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


def fill(
    writer: Writer, function: Callable[[C, Shard], object], make_context: Callable[[], C], config: Config
) -> tuple[Artifact, Summary]:
    """Run `function` on the writer's missing shards, close the artifact, and sum up."""
    missing, stage, workers = writer.missing, writer.manifest.stage, config.workers
    items = sum(len(shard.items) for shard in missing)
    if workers:
        make_context = functools.partial(_context_of_one, make_context, workers, config.threads)
    with (
        _threads(0 if workers else config.threads),
        tqdm(total=items, desc=stage, unit="item", disable=not sys.stderr.isatty(), leave=False) as bar,
    ):
        run_shards(function, missing, make_context, workers, lambda shard, _: bar.update(len(shard.items)))
    artifact = writer.finish()
    return artifact, summary(artifact, made=len(missing))


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
    """The context of one of the workers, with its threads or its share of the machine's: where all workers
    together have more threads than there are cores, each waits for the others most of the time.
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


def held_out(records: Artifact, splits: Sequence[str]) -> frozenset[str]:
    """Contents of the images that teach nothing: those that some sentence outside `splits` is about."""
    return frozenset(row["sha256"] for row in records.rows() if row["split"] not in splits)


def by_content(records: Artifact, key: str) -> dict[str, list[Record]]:
    """The records of one shard, grouped by image content (sha256) in order of first appearance."""
    grouped: dict[str, list[Record]] = {}
    for row in records.rows(key):
        record = Record.from_json(row)
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
        raise StaleArtifact(f"{made.folder}: is of other labels; run `ppt {made.manifest.stage} --fresh`")


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
