"""Stage 6, closer: how much labels and segmenter light up the things that share the target's name.

    ppt evaluate CONFIG.yaml --output DIR --nta

Only sentences whose truth names distractors are measured. Labels count as maps of 0 and 1, those that have no
mask as blank; of a segmenter every stage of the network is measured, and blank where the image went away.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from pipelines import stage
from pipelines.doors import open_reader
from ppt import rle
from ppt.activation import NonTarget, intervals, non_target
from ppt.config import Config
from ppt.metrics import Sample
from ppt.places import Place
from ppt.records import images
from ppt.seeding import generator
from ppt.segmenter.reader import Reader
from ppt.store import Artifact
from ppt.types import Record, Truth

LABELS = "labels"
Measured = tuple[str, str, str, NonTarget]
"""Stage, id, content of the image, and the measures."""


def measured(
    config: Config, output: Place, samples: list[Sample], segmenter: Artifact | None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(for each stage n, images, and every measure as [mean, low, high]; the rows of each sentence).

    samples: of the labels. segmenter: its artifact, None for the labels alone.
    """
    truth = {row["id"]: Truth.from_json(row) for row in Artifact.open(output / "truth").rows()}
    reader = open_reader(config, segmenter) if segmenter else None
    found: dict[str, list[Measured]] = defaultdict(list)
    lost: list[Record] = []
    for one in _all(config, output, {sample.id: sample for sample in samples}, truth, reader, lost):
        found[one[0]].append(one)
    for name in [name for name in found if name != LABELS] or ["logits"] * bool(lost):
        for record in lost:
            shape = truth[record.pair.id].rle.height, truth[record.pair.id].rle.width
            found[name] += _measured(name, record, truth, np.zeros(shape, np.float32))
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
    config: Config,
    output: Place,
    samples: dict[str, Sample],
    truth: dict[str, Truth],
    reader: Reader | None,
    lost: list[Record],
) -> Iterator[Measured]:
    """lost: gets the records whose image cannot be read any more."""
    records = Artifact.open(output / "records")
    root, policy = stage.images_root(config, output), stage.image_policy(config)
    for key in records.keys:
        for sha256, own in stage.by_content(records, key).items():
            asked = [r for r in own if r.pair.id in samples and truth[r.pair.id].distractors]
            for record in asked:
                yield from _measured(LABELS, record, truth, _as_map(samples[record.pair.id]))
            if reader is None or not asked:
                continue
            try:
                pixels = images.load(root, asked[0].pair.image, policy, sha256).pixels
            except images.ImageError:
                lost += asked
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
