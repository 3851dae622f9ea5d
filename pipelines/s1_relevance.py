"""Stage 1: CLIP features of every image, once per content, and a relevance map for every sentence.

    ppt relevance CONFIG.yaml --output DIR

Reads DIR/records and the images. Writes DIR/relevance: per shard a safetensors file with `dense/<sha256>`
(gh, gw, d) float16, `map/<id>` (gh, gw) float32, `text/<id>` (d,) float16, the sentence's vector, and
`words/<id>` (t, d) float16, that of each of its words read alone; rows {id, sha256, height, width, flags};
and a preview of maps.
"""

import functools
from dataclasses import dataclass

import numpy as np

from pipelines import stage
from pipelines.doors import open_clip_door
from ppt.backbones.clip import Clip
from ppt.config import Config
from ppt.manifest import Manifest
from ppt.places import Place
from ppt.points.scene import words_of
from ppt.records import images
from ppt.relevance import relevance_maps
from ppt.report import preview
from ppt.shard import Failure, Shard
from ppt.store import Artifact
from ppt.types import RelevanceMap

STAGE = "relevance"
PREVIEWED = 12


@dataclass(frozen=True)
class Context:
    """What one process keeps: the model, the records artifact, and where and how images are read."""

    clip: Clip
    records: Artifact
    root: Place
    policy: images.ImagePolicy
    config: Config


def run(config: Config, output: Place, fresh: bool = False) -> stage.Summary:
    """Make DIR/relevance complete. Raises StaleArtifact, WeightsError and the errors of what it reads."""
    records = Artifact.open(output / "records")
    clip = open_clip_door(config)
    manifest = Manifest(
        STAGE,
        schema_version=2,
        config=config.sections("clip", "relevance"),
        inputs={"records": records.fingerprint},
        weights={"clip": clip.weights_sha256},
        seed=config.seed,
    )
    plan = {key: [row["id"] for row in records.rows(key)] for key in records.keys}
    parts = stage.parts(plan, records)
    with stage.begun(config, output / STAGE, manifest, plan, parts, fresh) as writer:
        make = stage.Making(functools.partial(context, config, output), clip)
        artifact, summary = stage.fill(writer, shard_of_maps, make, config)
        if artifact is None:
            return summary
        if not (artifact.folder / "preview.png").exists():
            _preview(artifact, records, config, output)
    return summary


def context(config: Config, output: Place, clip: Clip | None = None) -> Context:
    """The context of one process; loads the model unless it is given."""
    policy = stage.image_policy(config)
    records = Artifact.open(output / "records")
    return Context(clip or open_clip_door(config), records, stage.images_root(config, output), policy, config)


def shard_of_maps(context: Context, shard: Shard) -> None:
    """Write one shard: features once per image content, a map for each of its sentences."""
    tensors: dict[str, np.ndarray] = {}
    rows, failures = [], []
    empty = context.clip.encode_texts([""])[0][0]
    groups = stage.by_content(context.records, shard.key)
    for sha256, records in stage.attempted(shard, STAGE, failures, groups):
        try:
            loaded = images.load(context.root, records[0].pair.image, context.policy, sha256)
        except images.ImageError as error:
            failures += [Failure(STAGE, r.pair.id, error.error, error.message) for r in records]
            continue
        try:
            with stage.at_image(records[0].pair.image):
                features = context.clip.encode_image(loaded.pixels)
        except MemoryError as error:
            failures += stage.out_of_memory(STAGE, records, error)
            continue
        except ValueError as error:  # features that are not finite
            failures += [
                Failure(STAGE, r.pair.id, "bad_features", f"{r.pair.image}: {error}") for r in records
            ]
            continue
        tensors[f"dense/{sha256}"] = features.values.astype(np.float16)
        texts = list(dict.fromkeys(r.pair.text for r in records))
        vectors, truncated = context.clip.encode_texts(texts)
        maps = relevance_maps(features, vectors, empty, context.config.relevance.redundancy)
        for record in records:
            found, cut = maps[texts.index(record.pair.text)], truncated[texts.index(record.pair.text)]
            tensors[f"map/{record.pair.id}"] = found.values
            tensors[f"text/{record.pair.id}"] = vectors[texts.index(record.pair.text)].astype(np.float16)
            words, _ = context.clip.encode_texts(words_of(record.pair.text))
            tensors[f"words/{record.pair.id}"] = words.astype(np.float16)
            flags = [*record.flags, *(["text_truncated"] if cut else [])]
            size = {"height": found.height, "width": found.width}
            rows.append({"id": record.pair.id, "sha256": sha256, **size, "flags": flags})
    shard.write(rows, tensors, failures)


def _preview(artifact: Artifact, records: Artifact, config: Config, output: Place) -> None:
    """preview.png: the first sentence of each of the first images, under its map."""
    tiles, captions = [], []
    for key in artifact.keys[:1]:
        tensors = artifact.tensors(key)
        for record, *_ in list(stage.by_content(records, key).values())[:PREVIEWED]:
            values = tensors.get(f"map/{record.pair.id}")
            pixels = stage.picture(config, output, record.pair.image, record.sha256)
            if values is not None and pixels is not None:
                tiles.append(preview.overlay_heat(RelevanceMap(values, record.height, record.width), pixels))
                captions.append(record.pair.text)
    stage.leave_preview(artifact.folder, tiles, captions)
