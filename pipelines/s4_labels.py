"""Stage 4: chosen masks -> pseudo-labels with a weight, scores and reasons.

    ppt labels CONFIG.yaml --output DIR

Reads DIR/masks. Writes DIR/labels and, joined and sorted by id, DIR/labels/labels.jsonl:
{"id","image","text","segmentation","scores","weight","reasons"}.
"""

import functools
from pathlib import Path

from pipelines import stage
from ppt import labels
from ppt.config import Config
from ppt.durable import ensure, json_lines
from ppt.manifest import Manifest
from ppt.report import preview
from ppt.rle import from_json
from ppt.shard import Shard
from ppt.store import Artifact, begin
from ppt.types import PseudoLabel

STAGE = "labels"
PREVIEWED = 24
SCORES = ("predicted_iou", "stability", "agreement", "relevance", "contrast", "area")


def run(config: Config, output: Path, fresh: bool = False) -> stage.Summary:
    """Make DIR/labels and its labels.jsonl complete. Raises StaleArtifact and the errors of what it reads."""
    masks = Artifact.open(output / "masks")
    manifest = Manifest(
        STAGE,
        schema_version=2,
        config=config.sections("labels"),
        inputs={"masks": masks.fingerprint},
        weights={},
        seed=config.seed,
    )
    plan = {key: [row["id"] for row in masks.rows(key)] for key in masks.keys}
    with begin(output / STAGE, manifest, plan, fresh) as writer:
        make = functools.partial(context, config, output)
        artifact, summary = stage.fill(writer, shard_of_labels, make, config)
        rows = sorted(artifact.rows(), key=lambda row: row["id"])
        ensure(artifact.folder / "labels.jsonl", json_lines(rows))
        if not (artifact.folder / "preview.png").exists():
            _preview(artifact, rows, config, output)
    return summary


def context(config: Config, output: Path) -> tuple[Config, Artifact]:
    """What one process keeps: the config and the masks it reads."""
    return config, Artifact.open(output / "masks")


def shard_of_labels(context: tuple[Config, Artifact], shard: Shard) -> None:
    """Write one shard: every sentence labelled, then compared with the others of its image."""
    config, masks = context
    by_image: dict[str, list[PseudoLabel]] = {}
    for row in masks.rows(shard.key):
        chosen = None if row["chosen"] is None else row["candidates"][row["chosen"]]
        scores = {name: row[name] for name in ("peak", "sure")}
        scores |= {name: chosen[name] for name in SCORES} if chosen else {}
        mask = from_json(chosen["segmentation"]) if chosen else None
        reasons = (*row["point_reasons"], *(r for r in row["reasons"] if r not in row["point_reasons"]))
        made = labels.label(
            row["id"], row["image"], row["text"], mask, scores, reasons,
            config.labels.min_stability, config.labels.min_agreement,
        )  # fmt: skip
        by_image.setdefault(row["image"], []).append(made)
    rows = []
    for group in by_image.values():
        clashes = labels.conflicts(group, config.labels.conflict_iou)
        for made in group:
            row = made.to_json()
            rows.append({**row, "reasons": [*row["reasons"], *clashes.get(made.id, ())]})
    shard.write(rows)


def _preview(artifact: Artifact, rows: list[dict], config: Config, output: Path) -> None:
    """preview.png: labels from the least to the most trusted, evenly spread."""
    ranked = sorted(rows, key=lambda row: (row["weight"], row["id"]))
    step = max(1, len(ranked) // PREVIEWED)
    tiles, captions = [], []
    for row in ranked[::step][:PREVIEWED]:
        pixels = stage.picture(config, output, row["image"])
        mask = from_json(row["segmentation"]) if row["segmentation"] else None
        if pixels is None or (mask and pixels.shape[:2] != (mask.height, mask.width)):
            continue
        if mask:
            pixels = preview.overlay_mask(pixels, mask)
        tiles.append(pixels)
        captions.append(f"{row['weight']:.2f} {row['text']}")
    stage.leave_preview(artifact.folder, tiles, captions)
