"""How far each pseudo-label is to be believed, and what to do with it: keep, review or drop.

    ppt quality CONFIG.yaml --output DIR

Reads DIR/labels and, where a segmenter was asked, DIR/predictions, its opinion. Writes DIR/quality: rows
{id, quality, band, second, reasons}. second is the IoU of the label with the segmenter's mask, null where
that was not asked. A label without a mask has quality 0; where a person decided, quality and band are what
was decided. No truth is read: `ppt evaluate` tells what the quality is worth where there is some.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import stage
from ppt import quality, rle
from ppt.config import Config
from ppt.durable import ensure, json_lines
from ppt.manifest import Manifest
from ppt.store import Artifact, begin
from ppt.types import PseudoLabel

STAGE = "quality"


def run(config: Config, output: Path, fresh: bool = False) -> stage.Summary:
    """Make DIR/quality complete. Raises StaleArtifact and the errors of what it reads."""
    labels = Artifact.open(output / "labels")
    asked = (output / "predictions" / "index.json").exists()
    predictions = Artifact.open(output / "predictions") if asked else None
    inputs = {"labels": labels} | ({"predictions": predictions} if predictions else {})
    manifest = Manifest(
        STAGE,
        schema_version=1,
        config=config.sections(STAGE),
        inputs={name: artifact.fingerprint for name, artifact in inputs.items()},
        weights={},
        seed=config.seed,
    )
    plan = {key: [row["id"] for row in labels.rows(key)] for key in labels.keys}
    with begin(output / STAGE, manifest, plan, fresh) as writer:
        missing = list(writer.missing)
        if missing:
            opinions = _opinions(labels, predictions)
            stability, agreement, second = np.array(list(opinions.values()), float).reshape(-1, 3).T
            found = quality.trust(agreement, second)
            judged = quality.quality(stability, agreement, second, found)
            worth = dict(zip(opinions, judged.tolist(), strict=True))
        for shard in missing:
            labelled = map(PseudoLabel.from_json, labels.rows(shard.key))
            shard.write([_row(label, opinions, worth, config) for label in labelled])
        artifact = writer.finish()
        rows = sorted(artifact.rows(), key=lambda row: (row["quality"], row["id"]))
        ensure(artifact.folder / "quality.jsonl", json_lines(rows))
        told = {row["id"]: row for row in labels.rows()}
        shown = [(told[row["id"]], f"{row['band']} {row['quality']:.2f}") for row in rows]
        ranked = [(of["image"], of["segmentation"], f"{said} {of['text']}") for of, said in shown]
        stage.leave_masks(artifact.folder, ranked, config, output)
    return stage.summary(artifact, made=len(missing))


def _opinions(labels: Artifact, predictions: Artifact | None) -> dict[str, tuple[float, float, float]]:
    """id -> (stability, agreement, IoU with the second opinion or NaN) of every label with a mask."""
    found: dict[str, tuple[float, float, float]] = {}
    for key in labels.keys:
        others = {row["id"]: row["segmentation"] for row in predictions.rows(key)} if predictions else {}
        for label in _masked(labels, key):
            second = float("nan")
            if label.id in others:
                other = others[label.id]
                second = rle.iou(label.segmentation, rle.from_json(other)) if other else 0.0
            found[label.id] = (label.scores["stability"], label.scores["agreement"], second)
    return found


def _masked(labels: Artifact, key: str) -> Iterator[Any]:
    for row in labels.rows(key):
        label = PseudoLabel.from_json(row)
        if label.segmentation is not None and not _decided(label):
            yield label


def _decided(label: PseudoLabel) -> str:
    """What a person decided of a label; "" where nobody did, or where another one is to look."""
    decision = (label.review or {}).get("decision", "")
    return "" if decision == "flag" else decision


def _row(
    label: PseudoLabel, opinions: dict[str, tuple[float, float, float]], of: dict[str, float], config: Config
) -> dict[str, Any]:
    settings = config.quality
    if decision := _decided(label):
        told = {"id": label.id, "second": None, "reasons": [f"reviewed:{decision}"]}
        return {**told, "quality": float(label.weight > 0), "band": "keep" if label.weight else "drop"}
    if label.id not in of:
        return {"id": label.id, "quality": 0.0, "band": "drop", "second": None, "reasons": ["no_mask"]}
    stability, agreement, nearness = opinions[label.id]
    second = None if np.isnan(nearness) else round(nearness, 6)
    worth = round(of[label.id], 6)
    return {
        "id": label.id,
        "quality": worth,
        "band": quality.band(worth, settings.keep, settings.drop),
        "second": second,
        "reasons": list(quality.reasons(stability, agreement, second, settings.keep)),
    }
