"""How far each pseudo-label is to be believed, and what to do with it: keep, review or drop.

    ppt quality CONFIG.yaml --output DIR

Reads DIR/labels and, where they are, DIR/predictions, the segmenter's opinion, and DIR/views. Writes
DIR/quality: rows {id, quality, band, outcome, second, views, reasons, of}. outcome: whether one thing,
several or nothing was found. second: the IoU of the label with the segmenter's mask, null where that was not
asked. views: the agreements of `ppt views`, which give reasons and do not move the quality. of: the masks
that the labels were made of, by the first digits of their fingerprint. A label without a mask has quality 0;
where a person decided, quality, band and outcome are what was decided. No truth is read: `ppt evaluate` tells
what the quality is worth where there is some.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines import stage
from ppt import quality, rle
from ppt.config import Config
from ppt.durable import ensure, json_lines
from ppt.manifest import Manifest
from ppt.places import Place
from ppt.store import Artifact, StaleArtifact, begin
from ppt.types import PseudoLabel

STAGE = "quality"
SCORED = 4
"""Schema of the labels from which on they tell of a rival, of the edge, and of what they were chosen from."""


@dataclass(frozen=True)
class Told:
    """What is known of a label with a mask. second: IoU with the second opinion, NaN where there is none."""

    scores: dict[str, float]
    second: float
    views: dict[str, float]


def run(config: Config, output: Place, fresh: bool = False) -> stage.Summary:
    """Make DIR/quality complete. Raises StaleArtifact and the errors of what it reads."""
    labels = Artifact.open(output / "labels")
    others = {name: Artifact.open(output / name) for name in _there(output)}
    if "views" in others:
        stage.must_be_of(labels, others["views"])
    if labels.manifest.schema_version < SCORED:
        raise StaleArtifact(f"{labels.folder}: lacks scores that quality asks for; run `ppt labels --fresh`")
    inputs = {"labels": labels, **others}
    manifest = Manifest(
        STAGE,
        schema_version=2,
        config=config.sections(STAGE),
        inputs={name: artifact.fingerprint for name, artifact in inputs.items()},
        weights={},
        seed=config.seed,
    )
    plan = {key: [row["id"] for row in labels.rows(key)] for key in labels.keys}
    parts = stage.parts(plan, *manifest.inputs.values())
    with begin(output / STAGE, manifest, plan, fresh, parts) as writer:
        missing = list(writer.missing)
        if missing:
            told = _told(labels, others)
            worth = _judged(told)
        for shard in missing:
            labelled = map(PseudoLabel.from_json, labels.rows(shard.key))
            shard.write([{**_row(label, told, worth, config), "of": label.of} for label in labelled])
        artifact = writer.finish()
        rows = sorted(artifact.rows(), key=lambda row: (row["quality"], row["id"]))
        ensure(artifact.folder / "quality.jsonl", json_lines(rows))
        made = {row["id"]: row for row in labels.rows()}
        shown = [(made[row["id"]], f"{row['band']} {row['quality']:.2f}") for row in rows]
        ranked = [(of["image"], of["segmentation"], f"{said} {of['text']}") for of, said in shown]
        stage.leave_masks(artifact.folder, ranked, config, output)
    return stage.summary(artifact, made=len(missing))


def _there(output: Place) -> list[str]:
    """The stages beside the labels that have something to say of them."""
    return [name for name in ("predictions", "views") if (output / name / "index.json").exists()]


def _told(labels: Artifact, others: dict[str, Artifact]) -> dict[str, Told]:
    """What is known of every label with a mask on which nobody has decided, by id."""
    found: dict[str, Told] = {}
    for key in labels.keys:
        predicted, seen = (
            {row["id"]: row for row in others[name].rows(key)} if name in others else {}
            for name in ("predictions", "views")
        )
        for label in _masked(labels, key):
            second = float("nan")
            if label.id in predicted:
                other = predicted[label.id]["segmentation"]
                second = rle.iou(label.segmentation, rle.from_json(other)) if other else 0.0
            views = {name: value for name, value in seen.get(label.id, {}).items() if name != "id"}
            found[label.id] = Told(label.scores, second, views)
    return found


def _judged(told: dict[str, Told]) -> dict[str, float]:
    """The quality of each, fitted to all of them."""
    rows = [(one.scores["stability"], one.scores["agreement"], one.second) for one in told.values()]
    stability, agreement, second = np.array(rows, float).reshape(-1, 3).T
    judged = quality.quality(stability, agreement, second, quality.trust(agreement, second))
    return dict(zip(told, judged.tolist(), strict=True))


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
    label: PseudoLabel, told: dict[str, Told], worth: dict[str, float], config: Config
) -> dict[str, Any]:
    masked = label.segmentation is not None
    row = {"id": label.id, "outcome": "one" if masked else "nothing", "second": None, "views": {}}
    if decision := _decided(label):
        band = "keep" if label.weight else "drop"
        return {**row, "quality": float(label.weight > 0), "band": band, "reasons": [f"reviewed:{decision}"]}
    if not masked:
        return {**row, "quality": 0.0, "band": "drop", "reasons": ["no_mask"]}
    settings, one, found = config.quality, told[label.id], round(worth[label.id], 6)
    second = None if np.isnan(one.second) else round(one.second, 6)
    return {
        **row,
        "outcome": quality.outcome(one.scores),
        "quality": found,
        "band": quality.band(found, settings.keep, settings.drop),
        "second": second,
        "views": one.views,
        "reasons": list(quality.reasons(one.scores, second, one.views, settings.keep)),
    }
