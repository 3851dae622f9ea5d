"""Lessons of the user's own pairs: pseudo-masks by a teacher, how far each is to be believed, and points.

DIR/points/object_centric and DIR/points/referring_<round>: rows {id, features, covers, height, width, kind,
segmentation, confidence, things, meant, complete, sure} and `covers/<id>` (t, gh, gw) uint8, what each thing
covers in 255ths of a cell; and a preview. The first teacher is the map's peak, on object-centric images;
later ones are the generator as it stands, on referring pairs. An image that some sentence of another split is
about teaches nothing.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines import stage
from pipelines.asking import Asking, asking
from ppt import rle
from ppt.backbones.sam import SamModel
from ppt.config import Config
from ppt.curriculum import confidence, taken_back
from ppt.manifest import Manifest
from ppt.places import Place
from ppt.points.lessons import make_lesson, stored
from ppt.points.prompter import Prompter
from ppt.points.scene import Example
from ppt.prompting import Answer, Prompt, ask, coverage
from ppt.records import images
from ppt.report import preview
from ppt.rle import Rle
from ppt.shard import Failure, Shard
from ppt.store import Artifact
from ppt.types import PointSet, Record, RelevanceMap, Source

STAGE = "points"
PREVIEWED = 6


@dataclass(frozen=True)
class Teaching:
    """Which pairs teach: those of one source, less those about images that are held out, by content."""

    source: Source
    held_out: frozenset[str]

    def teaches(self, record: Record) -> bool:
        return record.pair.source == self.source and record.sha256 not in self.held_out


@dataclass(frozen=True)
class Context:
    """What one process keeps: how SAM is asked, and which pairs teach."""

    asking: Asking
    config: Config
    teaching: Teaching


def lesson_settings(config: Config, *more: str) -> dict[str, Any]:
    """The settings that lessons depend on, and `more` of the generator's."""
    names = ("splits", "positives", "negatives", "steadiness", *more)
    return {"lessons": {name: config.sections("generator")["generator"][name] for name in names}}


def make(
    config: Config,
    output: Place,
    folder: Place,
    source: Source,
    prompter: Prompter,
    sam: SamModel,
    teacher: str,
) -> Artifact | None:
    """Make `folder` complete; None where that is a share of it. teacher: sha256 of the generator's weights;
    "peak" for the first.
    """
    records, relevance = Artifact.open(output / "records"), Artifact.open(output / "relevance")
    asked = {} if prompter.generator is None else {"sets": config.points.sets}
    manifest = Manifest(
        f"{STAGE}/{folder.name}",
        schema_version=1,
        config={**config.sections("sam", "masks"), **lesson_settings(config), **asked},
        inputs={"records": records.fingerprint, "relevance": relevance.fingerprint},
        weights={"sam": sam.weights_sha256, "teacher": teacher},
        seed=config.seed,
    )
    teaching = Teaching(source, stage.held_out(records, config.generator.splits))
    make_context = stage.Making(functools.partial(_context, config, output, prompter, teaching), sam)
    there = {key: {row["id"] for row in relevance.rows(key)} for key in relevance.keys}
    plan = {
        key: [
            r["id"]
            for r in records.rows(key)
            if r["id"] in there[key] and teaching.teaches(Record.from_json(r))
        ]
        for key in there
    }
    plan = {key: ids for key, ids in plan.items() if ids}
    parts = stage.parts(plan, records, relevance)
    with stage.begun(config, folder, manifest, plan, parts) as writer:
        artifact, _ = stage.fill(writer, shard_of_lessons, make_context, config)
        if artifact is None:
            return None
    if not (folder / "preview.png").exists():
        _preview(artifact, records, config, output)
    return artifact


def _context(
    config: Config, output: Place, prompter: Prompter, teaching: Teaching, sam: SamModel | None
) -> Context:
    return Context(asking(config, output, prompter, sam), config, teaching)


def shard_of_lessons(context: Context, shard: Shard) -> None:
    """Write one shard; a sentence without a pseudo-mask has confidence 0 and nothing to teach."""
    tensors = context.asking.relevance.tensors(shard.key)
    rows: list[dict[str, Any]] = []
    failures: list[Failure] = []
    covers: dict[str, np.ndarray] = {}
    for answered in context.asking.answers(STAGE, shard, failures, context.teaching.teaches):
        vectors = np.stack([tensors[f"text/{r.pair.id}"].astype(np.float32) for r, *_ in answered])
        rows += _lessons(context, answered, vectors @ vectors.T, covers)
    shard.write(rows, covers, failures)


def _lessons(
    context: Context,
    answered: Sequence[tuple[Record, Example, Answer]],
    likeness: np.ndarray,
    covers: dict[str, np.ndarray],
) -> list[dict[str, Any]]:
    """The rows of one image, and into `covers` what goes with them. Sentences that say different things must
    not mean one mask.
    """
    settings = context.config.generator
    masks = [_chosen(answer, record) for record, _, answer in answered]
    sure = _confidence(context, answered, masks)
    overlap = np.array([[rle.iou(a, b) for b in masks] for a in masks])
    sure = np.where(taken_back(overlap, likeness, sure, context.config.labels.conflict_iou), 0, sure)
    rows: list[dict[str, Any]] = []
    for i, (record, example, answer) in enumerate(answered):
        id = record.pair.id
        row = {"id": id, "features": record.sha256, "covers": id, "kind": context.teaching.source}
        row |= {"height": record.height, "width": record.width, "confidence": round(float(sure[i]), 6)}
        if sure[i] == 0 or answer.chosen is None:
            rows.append({**row, "segmentation": None, "things": [], "sure": 0.0, "confidence": 0.0})
            continue  # nothing to teach
        others = [j for j in range(len(masks)) if j != i and sure[j] > 0 and overlap[i, j] < 0.5]
        things = [rle.decode(masks[j]) for j in (i, *others)]
        lesson = make_lesson(
            things,
            0,
            example.relevance,
            settings.positives,
            settings.negatives,
            context.teaching.source == "object_centric",
            float(sure[i]),
        )
        covers[f"covers/{id}"] = stored(lesson.covers)
        rows.append({**row, "segmentation": answer.chosen.to_json(), **lesson.to_row()})
    return rows


def _confidence(
    context: Context, answered: Sequence[tuple[Record, Example, Answer]], masks: Sequence[Rle]
) -> np.ndarray:
    """How far each chosen mask is to be believed, in [0, 1]; 0 where there is none."""
    steady = np.ones(len(masks))
    if context.config.generator.steadiness and any(rle.area(mask) for mask in masks):
        mirrored = _mirrored_masks(context.asking, answered, masks)
        steady = np.array([rle.iou(a, b) for a, b in zip(masks, mirrored, strict=True)])
    witnesses = np.array([_witnesses(answer) for *_, answer in answered])
    return confidence(np.column_stack([witnesses, steady]))


def _witnesses(answer: Answer) -> tuple[float, float, float, float]:
    """Of the chosen mask: SAM's predicted IoU and stability, the fit with the map that its points came from,
    and how sure it is among what the sets found; 0 where nothing was chosen.
    """
    index = answer.choice.index
    if index is None:
        return 0.0, 0.0, 0.0, 0.0
    found = answer.candidates
    return found.predicted_iou[index], found.stability[index], answer.judged[index].fit, answer.sureness


def _mirrored_masks(
    how: Asking, answered: Sequence[tuple[Record, Example, Answer]], masks: Sequence[Rle]
) -> list[Rle]:
    """What the same points, mirrored, find in the mirror image of each mask; mirrored back."""
    record = answered[0][0]
    pixels = images.load(how.root, record.pair.image, how.policy, record.sha256).pixels
    flipped = np.ascontiguousarray(pixels[:, ::-1])
    maps = [
        RelevanceMap(
            coverage(rle.decode(mask)[:, ::-1], e.relevance.values.shape),
            mask.height,
            mask.width,
        )
        for (_, e, _), mask in zip(answered, masks, strict=True)
    ]
    prompts = [
        [Prompt(_mirrored(answer.points, record.width), found)]
        for (*_, answer), found in zip(answered, maps, strict=True)
    ]
    again = ask(how.sam, lambda: how.sam.embed(flipped), prompts, maps, how.rules)
    return [rle.encode(rle.decode(_chosen(a, record))[:, ::-1]) for a in again]


def _mirrored(points: PointSet, width: int) -> PointSet:
    xy = points.xy.copy()
    xy[:, 0] = width - 1 - xy[:, 0]
    return PointSet(xy, points.labels, points.confidence, points.reasons)


def _chosen(answer: Answer, record: Record) -> Rle:
    """The chosen mask, an empty one where there is none."""
    return answer.chosen or rle.encode(np.zeros((record.height, record.width), bool))


def _preview(artifact: Artifact, records: Artifact, config: Config, output: Place) -> None:
    """preview.png: the pseudo-masks that are believed most, and below them those believed least."""
    found = [row for row in artifact.rows() if row["segmentation"] is not None]
    found.sort(key=lambda row: (-row["confidence"], row["id"]))
    wanted = [*found[:PREVIEWED], *found[PREVIEWED:][-PREVIEWED:]]
    told = {row["id"]: row for row in records.rows()} if wanted else {}
    tiles, captions = [], []
    for row in wanted:
        record = told[row["id"]]
        pixels = stage.picture(config, output, record["image"], record["sha256"])
        if pixels is not None:
            tiles.append(preview.overlay_mask(pixels, rle.from_json(row["segmentation"])))
            captions.append(f"{record['text']} ({row['confidence']:.2f})")
    stage.leave_preview(artifact.folder, tiles, captions)
