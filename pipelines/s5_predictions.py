"""Stage 5, in use: what the trained segmenter makes of every pair.

Reads DIR/records, DIR/segmenter and the images. Writes DIR/predictions: rows {id, image, text, segmentation,
sure} and, joined and sorted by id, predictions.jsonl. `segmentation` is null where the segmenter says that
nothing is meant; sure is the mean of its probabilities inside. `predictions.threshold` is where a mask that
the segmenter draws itself is cut; where SAM draws, it is no part of what made them.
"""

import functools
from dataclasses import dataclass
from typing import Any

from pipelines import stage
from pipelines.doors import open_reader
from ppt.config import Config
from ppt.durable import ensure, json_lines
from ppt.manifest import Manifest
from ppt.places import Place
from ppt.records import images
from ppt.segmenter.reader import Reader
from ppt.shard import Failure, Shard
from ppt.store import Artifact

STAGE = "predictions"


@dataclass(frozen=True)
class Context:
    """What one process keeps: the segmenter, the records, and where and how images are read."""

    reader: Reader
    records: Artifact
    root: Place
    policy: images.ImagePolicy


def run(config: Config, output: Place, fresh: bool = False, weights: Place | None = None) -> stage.Summary:
    """Make DIR/predictions complete. weights: the folder of the segmenter, DIR/segmenter by default.

    Raises StaleArtifact, WeightsError and the errors of what it reads.
    """
    folder = weights or output / "segmenter"
    records, segmenter = Artifact.open(output / "records"), Artifact.open(folder)
    reader = open_reader(config, segmenter, output=output)
    drawn = ["sam"] if reader.sam else []
    switched = [] if reader.sam else [STAGE]
    manifest = Manifest(
        STAGE,
        schema_version=1,
        config=config.sections("clip", *drawn, *switched),
        inputs={"records": records.fingerprint, "segmenter": segmenter.fingerprint},
        weights={name: segmenter.manifest.weights[name] for name in ("clip", *drawn)},
        seed=config.seed,
    )
    plan = {key: [row["id"] for row in records.rows(key)] for key in records.keys}
    parts = stage.parts(plan, records, segmenter.fingerprint)
    with stage.begun(config, output / STAGE, manifest, plan, parts, fresh) as writer:
        make = stage.Making(functools.partial(context, config, output, folder), reader)
        artifact, summary = stage.fill(writer, shard_of_predictions, make, config)
        if artifact is None:
            return summary
        rows = sorted(artifact.rows(), key=lambda row: row["id"])
        ensure(artifact.folder / "predictions.jsonl", json_lines(rows))
        ranked = sorted(rows, key=lambda row: (row["sure"], row["id"]))
        shown = [(row["image"], row["segmentation"], f"{row['sure']:.2f} {row['text']}") for row in ranked]
        stage.leave_masks(artifact.folder, shown, config, output)
    return summary


def context(config: Config, output: Place, folder: Place, reader: Reader | None = None) -> Context:
    """The context of one process; opens the segmenter unless it is given."""
    reader = reader or open_reader(config, Artifact.open(folder), output=output)
    root, policy = stage.images_root(config, output), stage.image_policy(config)
    return Context(reader, Artifact.open(output / "records"), root, policy)


def shard_of_predictions(context: Context, shard: Shard) -> None:
    """Write one shard: every image read once, all its sentences asked."""
    rows: list[dict[str, Any]] = []
    failures: list[Failure] = []
    groups = stage.by_content(context.records, shard.key)
    for sha256, records in stage.attempted(shard, STAGE, failures, groups):
        try:
            pixels = images.load(context.root, records[0].pair.image, context.policy, sha256).pixels
        except images.ImageError as error:
            failures += [Failure(STAGE, r.pair.id, error.error, error.message) for r in records]
            continue
        try:
            with stage.at_image(records[0].pair.image):
                found = context.reader(pixels, [record.pair.text for record in records])
        except MemoryError as error:
            failures += stage.out_of_memory(STAGE, records, error)
            continue
        rows += [
            {"id": r.pair.id, "image": r.pair.image, "text": r.pair.text, **prediction.to_json()}
            for r, prediction in zip(records, found, strict=True)
        ]
    shard.write(rows, None, failures)
