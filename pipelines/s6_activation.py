"""Stage 6, closer: how much labels and segmenter light up the things that share the target's name.

    ppt evaluate CONFIG.yaml --output DIR --nta

Only sentences whose truth names distractors are measured. Labels count as maps of 0 and 1, those that have no
mask as blank; of a segmenter every stage of the network is measured.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from pipelines import stage
from pipelines.doors import open_staged_door
from ppt import rle
from ppt.activation import NonTarget, intervals, non_target
from ppt.config import Config
from ppt.metrics import Sample
from ppt.records import images
from ppt.seeding import generator
from ppt.segmenter.reader import Reader, read_segmenter
from ppt.store import Artifact
from ppt.types import Record, Truth

Measured = tuple[str, str, str, NonTarget]
"""Stage, id, content of the image, and the measures."""


def measured(
    config: Config, output: Path, samples: list[Sample], segmenter: Artifact | None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(for each stage n, images, and every measure as [mean, low, high]; the rows of each sentence).

    samples: of the labels. segmenter: its artifact, None for the labels alone.
    """
    truth = {row["id"]: Truth.from_json(row) for row in Artifact.open(output / "truth").rows()}
    reader = read_segmenter(segmenter, open_staged_door(config)) if segmenter else None
    found: dict[str, list[Measured]] = defaultdict(list)
    for one in _all(config, output, {sample.id: sample for sample in samples}, truth, reader):
        found[one[0]].append(one)
    rng = generator(config.seed, "evaluate", "nta")
    report: dict[str, Any] = {}
    for name, ones in found.items():
        over = intervals([one[3] for one in ones], [one[2] for one in ones], rng)
        figures = {key: [round(v, 6) for v in (o.mean, o.low, o.high)] for key, o in over.items()}
        report[name] = {"n": len(ones), "images": len({one[2] for one in ones}), **figures}
    rows = [
        {"id": id, "stage": name, **vars(measures)}
        for ones in found.values()
        for name, id, _, measures in ones
    ]
    return report, sorted(rows, key=lambda row: row["id"])


def _all(
    config: Config, output: Path, samples: dict[str, Sample], truth: dict[str, Truth], reader: Reader | None
) -> Iterator[Measured]:
    records = Artifact.open(output / "records")
    root, policy = stage.images_root(config, output), stage.image_policy(config)
    for key in records.keys:
        for sha256, own in stage.by_content(records, key).items():
            asked = [r for r in own if r.pair.id in truth and truth[r.pair.id].distractors]
            for record in asked:
                yield from _measured("labels", record, truth, _as_map(samples[record.pair.id]))
            if reader is None or not asked:
                continue
            try:
                pixels = images.load(root, asked[0].pair.image, policy, sha256).pixels
            except images.ImageError:
                continue
            shown = reader.activations(pixels, [record.pair.text for record in asked])
            for record, maps in zip(asked, shown, strict=True):
                for name, map in maps.items():
                    yield from _measured(name, record, truth, map)


def _measured(
    name: str, record: Record, truth: dict[str, Truth], map: Float[np.ndarray, "h w"]
) -> Iterator[Measured]:
    true = truth[record.pair.id]
    others = [rle.decode(mask) for mask in true.distractors or ()]
    found = non_target(map, rle.decode(true.rle), others)
    if found is not None:
        yield name, record.pair.id, record.sha256, found


def _as_map(sample: Sample) -> Float[np.ndarray, "h w"]:
    if sample.prediction is None:
        return np.zeros((sample.truth.height, sample.truth.width), np.float32)
    return rle.decode(sample.prediction).astype(np.float32)
