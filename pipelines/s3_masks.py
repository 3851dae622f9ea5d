"""Stage 3: relevance maps -> point prompts -> SAM's candidate masks, and which one is the sentence's.

    ppt masks CONFIG.yaml --output DIR

Reads DIR/records, DIR/relevance and the images. Writes DIR/masks: rows with the points and why, every
candidate with its scores, the chosen one or none, and why. SAM encodes each image content once, whatever the
number of sentences.
"""

import functools
from typing import Any

from pipelines import stage
from pipelines.asking import Asking, asking
from pipelines.doors import open_sam_door
from ppt.backbones.sam import SamModel
from ppt.config import Config
from ppt.manifest import Manifest
from ppt.places import Place
from ppt.points.examples import Example
from ppt.points.prompter import Prompter
from ppt.points.weights import read_generator
from ppt.prompting import Answer
from ppt.relevance import contrast
from ppt.report import preview
from ppt.rle import from_json
from ppt.shard import Failure, Shard
from ppt.store import Artifact
from ppt.types import PointSet, Record

STAGE = "masks"
PREVIEWED = 12


def run(config: Config, output: Place, fresh: bool = False) -> stage.Summary:
    """Make DIR/masks complete. Raises StaleArtifact, WeightsError and the other errors of what it reads."""
    records, relevance = (Artifact.open(output / name) for name in ("records", "relevance"))
    asked = ["points"] if config.points.method == "generator" else []
    generator = {name: Artifact.open(output / name).fingerprint for name in asked}
    sam = open_sam_door(config, output)
    manifest = Manifest(
        STAGE,
        schema_version=3,
        config=config.sections("points", "sam", "masks"),
        inputs={"records": records.fingerprint, "relevance": relevance.fingerprint, **generator},
        weights={"sam": sam.weights_sha256},
        seed=config.seed,
    )
    plan = {key: [row["id"] for row in relevance.rows(key)] for key in relevance.keys}
    parts = stage.parts(plan, records, relevance, *generator.values())
    with stage.begun(config, output / STAGE, manifest, plan, parts, fresh) as writer:
        make = stage.Making(functools.partial(context, config, output), sam)
        artifact, summary = stage.fill(writer, shard_of_masks, make, config)
        if artifact is None:
            return summary
        if not (artifact.folder / "preview.png").exists():
            _preview(artifact, config, output)
    return summary


def context(config: Config, output: Place, sam: SamModel | None = None) -> Asking:
    """The context of one process; loads the models unless SAM is given."""
    generator = None
    if config.points.method == "generator":
        generator = read_generator(Artifact.open(output / "points"))
    return asking(config, output, Prompter(config.points, generator), sam)


def shard_of_masks(context: Asking, shard: Shard) -> None:
    """Write one shard: each image embedded once, all its sentences prompted together."""
    rows: list[dict[str, Any]] = []
    failures: list[Failure] = []
    for answered in context.answers(STAGE, shard, failures):
        rows += [_row(*case) for case in answered]
    shard.write(rows, None, failures)


def _row(record: Record, example: Example, answer: Answer) -> dict[str, Any]:
    masks = answer.candidates
    candidates = [
        {
            "segmentation": mask.to_json(),
            "set": answer.of_set[i],
            "predicted_iou": _rounded(masks.predicted_iou[i]),
            "stability": _rounded(masks.stability[i]),
            "agreement": _rounded(answer.judged[i].agreement),
            "fit": _rounded(answer.judged[i].fit),
            "relevance": _rounded(answer.judged[i].relevance),
            "contrast": _rounded(answer.judged[i].contrast),
            "area": _rounded(answer.judged[i].area),
        }
        for i, mask in enumerate(masks.rles)
    ]
    return {
        "id": record.pair.id,
        "image": record.pair.image,
        "text": record.pair.text,
        "height": record.height,
        "width": record.width,
        "sets": [
            {"points": _points(points), "sure": _rounded(sure)}
            for points, sure in zip(answer.sets, answer.sure, strict=True)
        ],
        "points": _points(answer.points),
        "point_reasons": list(answer.points.reasons),
        "peak": _rounded(contrast(example.relevance.values)),
        "sure": _rounded(answer.sureness),
        "candidates": candidates,
        "chosen": answer.choice.index,
        "reasons": list(answer.choice.reasons),
    }


def _points(points: PointSet) -> list[list[float]]:
    return [
        [_rounded(x), _rounded(y), int(label)] for (x, y), label in zip(points.xy, points.labels, strict=True)
    ]


def _rounded(value: Any) -> float:
    """Six digits: enough to judge by, and short enough to read."""
    return round(float(value), 6)


def _preview(artifact: Artifact, config: Config, output: Place) -> None:
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
        tiles.append(preview.draw_points(pixels, PointSet.from_rows(row["points"])))
        captions.append(row["text"])
    stage.leave_preview(artifact.folder, tiles, captions)
