"""Stage 3: relevance maps -> point prompts -> SAM's candidate masks, and which one is the sentence's.

    ppt masks CONFIG.yaml --output DIR

Reads DIR/records, DIR/relevance and the images. Writes DIR/masks: rows with the points and why, every
candidate with its scores, the chosen one or none, and why. SAM encodes each image content once, whatever the
number of sentences.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import stage
from ppt import prompting
from ppt.backbones.sam import SamModel, load_sam
from ppt.config import Config, PointsConfig
from ppt.manifest import Manifest
from ppt.points import from_maps
from ppt.records import images
from ppt.relevance import contrast
from ppt.report import preview
from ppt.rle import from_json
from ppt.shard import Failure, Shard
from ppt.store import Artifact, begin
from ppt.types import MaskCandidates, PointSet, Record, RelevanceMap

STAGE = "masks"
PREVIEWED = 12


@dataclass(frozen=True)
class Context:
    """What one process keeps: the model, the artifacts it reads, and where and how images are read."""

    sam: SamModel
    records: Artifact
    relevance: Artifact
    root: Path
    policy: images.ImagePolicy
    config: Config


def run(config: Config, output: Path, fresh: bool = False) -> stage.Summary:
    """Make DIR/masks complete. Raises StaleArtifact, WeightsError and the other errors of what it reads."""
    relevance = Artifact.open(output / "relevance")
    sam = _load(config)
    manifest = Manifest(
        STAGE,
        schema_version=1,
        config=config.sections("points", "sam", "masks"),
        inputs={"records": Artifact.open(output / "records").fingerprint, "relevance": relevance.fingerprint},
        weights={"sam": sam.weights_sha256},
        seed=config.seed,
    )
    plan = {key: [row["id"] for row in relevance.rows(key)] for key in relevance.keys}
    with begin(output / STAGE, manifest, plan, fresh) as writer:
        make = functools.partial(context, config, output, sam if config.workers == 0 else None)
        artifact, summary = stage.fill(writer, shard_of_masks, make, config)
        if not (artifact.folder / "preview.png").exists():
            _preview(artifact, config, output)
    return summary


def context(config: Config, output: Path, sam: SamModel | None = None) -> Context:
    """The context of one process; loads the model unless it is given."""
    records, relevance = Artifact.open(output / "records"), Artifact.open(output / "relevance")
    root, policy = stage.images_root(config, output), stage.image_policy(config)
    return Context(sam or _load(config), records, relevance, root, policy, config)


def _load(config: Config) -> SamModel:
    return load_sam(config.sam.model, config.sam.weights, config.device, config.sam.prompt_batch)


def point_prompts(relevance: RelevanceMap, config: PointsConfig) -> PointSet:
    """The configured way from a map to points."""
    match config.method:
        case "peak":
            return from_maps.peak_points(relevance)
        case "surgery":
            return from_maps.surgery_points(relevance, config.surgery_threshold)
        case "read":
            return from_maps.read_points(
                relevance, config.read_positive, config.read_negative, config.read_points
            )


def shard_of_masks(context: Context, shard: Shard) -> None:
    """Write one shard: each image embedded once, all its sentences prompted together."""
    rows, failures = [], []
    maps = context.relevance.tensors(shard.key)
    for sha256, records in stage.by_content(context.records, shard.key).items():
        asked = [record for record in records if f"map/{record.pair.id}" in maps]
        if not asked:
            continue
        found = [RelevanceMap(maps[f"map/{r.pair.id}"], r.height, r.width) for r in asked]
        prompts = [point_prompts(relevance, context.config.points) for relevance in found]
        try:
            candidates = _candidates(context, asked[0], sha256, prompts)
        except images.ImageError as error:
            failures += [Failure(STAGE, r.pair.id, error.error, error.message) for r in asked]
            continue
        except (FloatingPointError, ValueError) as error:  # masks or scores that are not finite
            failures += [Failure(STAGE, r.pair.id, "bad_masks", f"{r.pair.image}: {error}") for r in asked]
            continue
        for record, relevance, prompt, masks in zip(asked, found, prompts, candidates, strict=True):
            rows.append(_row(context.config, record, relevance, prompt, masks))
    shard.write(rows, None, failures)


def _candidates(
    context: Context, record: Record, sha256: str, prompts: list[PointSet]
) -> list[MaskCandidates]:
    """SAM's candidates for every sentence of one image; without a positive point there is nothing to ask."""
    asked = [prompt if (prompt.labels == 1).any() else from_maps.no_points() for prompt in prompts]
    if not any(len(prompt.labels) for prompt in asked):
        return [MaskCandidates((), np.zeros(0, np.float32), np.zeros(0, np.float32))] * len(asked)
    pixels = images.load(context.root, record.pair.image, context.policy, sha256).pixels
    return context.sam.predict(context.sam.embed(pixels), asked)


def _row(
    config: Config, record: Record, relevance: RelevanceMap, prompt: PointSet, masks: MaskCandidates
) -> dict[str, Any]:
    judged = prompting.judge(masks, relevance)
    if masks.rles:
        choice = prompting.choose(
            masks, judged, config.masks.choice, config.masks.min_area, config.masks.max_area
        )
    else:
        choice = prompting.Choice(None, prompt.reasons)
    candidates = [
        {
            "segmentation": mask.to_json(),
            "predicted_iou": _rounded(masks.predicted_iou[i]),
            "stability": _rounded(masks.stability[i]),
            "agreement": _rounded(judged[i].agreement),
            "relevance": _rounded(judged[i].relevance),
            "contrast": _rounded(judged[i].contrast),
            "area": _rounded(judged[i].area),
        }
        for i, mask in enumerate(masks.rles)
    ]
    return {
        "id": record.pair.id,
        "image": record.pair.image,
        "text": record.pair.text,
        "height": record.height,
        "width": record.width,
        "points": [
            [_rounded(x), _rounded(y), int(label)]
            for (x, y), label in zip(prompt.xy, prompt.labels, strict=True)
        ],
        "point_reasons": list(prompt.reasons),
        "peak": _rounded(contrast(relevance.values)),
        "candidates": candidates,
        "chosen": choice.index,
        "reasons": list(choice.reasons),
    }


def _rounded(value: Any) -> float:
    """Six digits: enough to judge by, and short enough to read."""
    return round(float(value), 6)


def _preview(artifact: Artifact, config: Config, output: Path) -> None:
    """preview.png: the first sentence of each of the first images, its points and its mask."""
    tiles, captions, seen = [], [], set()
    for row in artifact.rows(*artifact.keys[:1]):
        if row["image"] in seen or len(tiles) == PREVIEWED:
            continue
        seen.add(row["image"])
        pixels = stage.picture(config, output, row["image"])
        if pixels is None or pixels.shape[:2] != (row["height"], row["width"]):
            continue
        if row["chosen"] is not None:
            chosen = from_json(row["candidates"][row["chosen"]]["segmentation"])
            pixels = preview.overlay_mask(pixels, chosen)
        tiles.append(preview.draw_points(pixels, stage.stored_points(row)))
        captions.append(row["text"])
    stage.leave_preview(artifact.folder, tiles, captions)
