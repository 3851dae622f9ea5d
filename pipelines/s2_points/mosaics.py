"""Mosaics of the object-centric pairs' pseudo-masks, read by CLIP once, and their lessons.

DIR/points/mosaics: per shard rows {id, features, covers, height, width, kind, text, names, confidence,
things, meant, complete, sure}, where names says which words name things; the tensors that DIR/relevance has,
`dense/<mosaic>`, `map/<id>`, `words/<id>`; `covers/<mosaic>` (t, gh, gw) uint8, what each thing covers in
255ths of a cell; `reading/<id>` (t, c) float32, what the judge goes by (`ppt.points.reading`); for some
mosaics what the mask loss needs of SAM, `sam/<mosaic>` (c, g, g) float16 and `masks/<mosaic>` (t, h, w)
uint8, with the input size in the rows; and a preview.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipelines import stage
from pipelines.asking import read_example
from pipelines.doors import open_clip_door, open_sam_door
from pipelines.pieces import StoredPieces
from pipelines.s2_points.own_pairs import lesson_settings
from ppt.attempts import attempted
from ppt.backbones.clip import Clip
from ppt.backbones.sam import SamModel
from ppt.config import Config
from ppt.manifest import Manifest
from ppt.mosaics import Mosaic, Pieces, Said, noun, sample_mosaic
from ppt.places import Place
from ppt.points.lessons import make_lesson, stored
from ppt.points.losses import covers_of
from ppt.points.reading import packed, read
from ppt.points.scene import collate, words_of
from ppt.prompting import coverage
from ppt.records import images
from ppt.relevance import relevance_maps
from ppt.report import preview
from ppt.rle import encode
from ppt.seeding import generator
from ppt.shard import Failure, Shard
from ppt.store import Artifact
from ppt.types import RelevanceMap

STAGE, NAME = "points", "mosaics"
SETTINGS = ("mosaics", "pieces", "mosaic_side", "through_sam")
PREVIEWED = 12


@dataclass(frozen=True)
class Context:
    """What one process keeps: the models, and the pieces with where and how their images are read."""

    clip: Clip
    sam: SamModel
    config: Config
    pieces: Pieces


def make(config: Config, output: Place, lessons: Artifact, clip: Clip, sam: SamModel) -> Artifact | None:
    """Make DIR/points/mosaics complete, of object-centric lessons; None where too few have a mask, or that
    is a share of it.
    """
    records = Artifact.open(output / "records")
    chosen = best(lessons, config.generator.pieces)
    if len(chosen) < 2:
        return None
    rows = [{**record, **chosen[record["id"]]} for record in records.rows() if record["id"] in chosen]
    manifest = Manifest(
        f"{STAGE}/{NAME}",
        schema_version=1,
        config={**config.sections("clip", "relevance"), **lesson_settings(config, *SETTINGS)},
        inputs={"records": records.fingerprint, "lessons": lessons.fingerprint},
        weights={"clip": clip.weights_sha256, "sam": sam.weights_sha256},
        seed=config.seed,
    )
    names = [f"mosaic{i:06d}" for i in range(config.generator.mosaics)]
    size = config.shard_size
    plan = {f"{i:05d}": names[i * size : (i + 1) * size] for i in range(-(-len(names) // size))}
    parts = stage.parts(plan, *manifest.inputs.values())
    with stage.begun(config, output / STAGE / NAME, manifest, plan, parts) as writer:
        make_context = stage.Making(functools.partial(_context, config, output, rows), (clip, sam))
        artifact, _ = stage.fill(writer, shard_of_mosaics, make_context, config)
        if artifact is None:
            return None
        if not (artifact.folder / "preview.png").exists():
            _preview(artifact, _pieces(config, output, rows), config)
    return artifact


def _context(
    config: Config, output: Place, rows: Sequence[dict[str, Any]], models: tuple[Clip, SamModel] | None
) -> Context:
    """The context of one process; loads the models unless they are given."""
    clip, sam = models or (open_clip_door(config), open_sam_door(config))
    return Context(clip, sam, config, _pieces(config, output, rows))


def _pieces(config: Config, output: Place, rows: Sequence[dict[str, Any]]) -> StoredPieces:
    return StoredPieces(rows, stage.images_root(config, output), stage.image_policy(config))


def best(lessons: Artifact, share: float) -> dict[str, dict[str, Any]]:
    """id -> row of the share of the lessons with a mask that are believed most."""
    rows = [row for row in lessons.rows() if row["segmentation"] is not None]
    rows.sort(key=lambda row: (-row["confidence"], row["id"]))
    return {row["id"]: row for row in rows[: round(share * len(rows))]}


def drawn(config: Config, pieces: Pieces, name: str) -> tuple[Mosaic, list[Said]]:
    """The mosaic of that name, and what is said of it."""
    return sample_mosaic(generator(config.seed, "points/mosaics", name), pieces, config.generator.mosaic_side)


def shard_of_mosaics(context: Context, shard: Shard) -> None:
    """Write one shard: every mosaic made from its name, read once."""
    tensors: dict[str, np.ndarray] = {}
    rows: list[dict[str, Any]] = []
    failures: list[Failure] = []
    for name in attempted(shard, STAGE, shard.items, lambda name: [name], failures):
        try:
            mosaic, said = drawn(context.config, context.pieces, name)
        except images.ImageError as error:  # an image that went away
            failures.append(Failure(STAGE, name, error.error, error.message))
            continue
        if said:
            rows += _rows(context, name, mosaic, said, tensors)
    shard.write(rows, tensors, failures)


def _rows(
    context: Context, name: str, mosaic: Mosaic, said: list[Said], tensors: dict[str, np.ndarray]
) -> Iterator[dict[str, Any]]:
    settings = context.config.generator
    features = context.clip.encode_image(mosaic.image)
    tensors[f"dense/{name}"] = features.values.astype(np.float16)
    texts = [one.text for one in said]
    empty = context.clip.encode_texts([""])[0][0]
    maps = relevance_maps(
        features, context.clip.encode_texts(texts)[0], empty, context.config.relevance.redundancy
    )
    lesson = make_lesson(mosaic.masks, 0, _flat(maps[0]), settings.positives, settings.negatives)
    tensors[f"covers/{name}"] = stored(lesson.covers)
    named = {word for text in mosaic.texts for word in words_of(noun(text))}
    seen = _seen_by_sam(context, name, mosaic, tensors)
    ids = [f"{name}/{number}" for number in range(len(said))]
    for id, one, relevance in zip(ids, said, maps, strict=True):
        tensors[f"map/{id}"] = relevance.values
        words, _ = context.clip.encode_texts(words_of(one.text))
        tensors[f"words/{id}"] = words.astype(np.float16)
        row: dict[str, Any] = {"id": id, "features": name, "covers": name, "kind": one.kind, "text": one.text}
        row |= {"confidence": 1.0, "height": relevance.height, "width": relevance.width}
        row["names"] = [word in named for word in words_of(one.text)]
        yield {**row, **seen, **replace(lesson, meant=one.target).to_row()}
    scene = collate([read_example(tensors, name, id, mosaic.image.shape[:2]) for id in ids])
    things, there = covers_of([lesson] * len(ids), scene)
    for id, reading in zip(ids, packed(read(scene, things, there)), strict=True):
        tensors[f"reading/{id}"] = reading


def _seen_by_sam(
    context: Context, name: str, mosaic: Mosaic, tensors: dict[str, np.ndarray]
) -> dict[str, Any]:
    """What the rows say of SAM's embedding, which goes into `tensors`; nothing where SAM does not look."""
    drawn = generator(context.config.seed, "points/through_sam", name).random()
    if drawn >= context.config.generator.through_sam:
        return {}
    embedding = context.sam.embed(mosaic.image)
    tensors[f"sam/{name}"] = embedding.features[0].cpu().numpy().astype(np.float16)
    low = context.sam.low_size(embedding)
    tensors[f"masks/{name}"] = stored(np.stack([coverage(mask, low) for mask in mosaic.masks]))
    return {"sam_input": list(embedding.input_size)}


def _flat(like: RelevanceMap) -> RelevanceMap:
    """Tempts nowhere: the things of a mosaic are all known."""
    return RelevanceMap(np.zeros_like(like.values), like.height, like.width)


def _preview(artifact: Artifact, pieces: Pieces, config: Config) -> None:
    """preview.png: the first mosaics with a sentence each, and the thing it means."""
    tiles, captions = [], []
    for name in artifact.items(artifact.keys[0])[:PREVIEWED]:
        mosaic, said = drawn(config, pieces, name)
        if said:
            tiles.append(preview.overlay_mask(mosaic.image, encode(mosaic.masks[said[0].target])))
            captions.append(said[0].text)
    stage.leave_preview(artifact.folder, tiles, captions)
