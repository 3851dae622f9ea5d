"""Ways to make points, side by side on the same images, maps and SAM embeddings; judged against the truth.

    ppt benchmark points CONFIG.yaml --output DIR [--pairs PAIRS --truth TRUTH]

Makes DIR/records and DIR/relevance as a run would, trains a generator for each of `benchmark.variants` and
each seed (DIR/benchmark/<variant>_<seed>), prompts SAM with the points of every method in one pass, and
writes DIR/benchmark/points.json and points.md. Sentences of `generator.splits` may teach and are not judged,
unless there are no others. The oracle rows click at the innermost pixel of the truth: a ceiling for points,
and nothing that a run could do.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipelines import s0_records, s1_relevance, s2_points, stage
from pipelines.asking import Asking, asking, example
from pipelines.benchmark.tables import Judged, Row, groups_of, markdown, percent, report
from ppt import metrics, rle
from ppt.config import Config
from ppt.durable import write_atomic
from ppt.inside import depth_inside
from ppt.metrics import Conventions, Sample
from ppt.points.prompter import Prompter
from ppt.points.scene import Example
from ppt.points.weights import read_generator
from ppt.prompting import Answer, Prompt, ask
from ppt.records import images
from ppt.rle import Rle
from ppt.store import Artifact
from ppt.types import PointSet, Record, Truth

METHODS = {"peak": "peak", "surgery": "CLIP Surgery points", "read": "READ points"}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("point generator", {}),
    "no_negatives": ("… without negatives", {"negative": False}),
    "no_ignore": ("… without ignore", {"ignore": False}),
    "together": ("… all sources at once", {"order": "together"}),
    "hardest_first": ("… hardest first", {"order": "hardest_first"}),
    "object_centric": ("… object-centric only", {"sources": ("object_centric",)}),
    "no_mosaics": ("… without mosaics", {"sources": ("object_centric", "referring")}),
    "no_referring": ("… without referring pairs", {"sources": ("object_centric", "mosaic")}),
}
"""Name in the table, and what is changed of the generator's settings."""
ORACLE, CEILING = "oracle point", "oracle point, oracle choice"
COLUMNS = {"miou": "mIoU", "oiou": "oIoU", "prec@0.5": "Prec@0.5", "prec@0.7": "Prec@0.7", "pointm": "PointM"}


def points(config: Config, output: Path) -> str:
    """Run the comparison; returns the tables as Markdown, in percent, two a split."""
    s0_records.run(config, output)
    s1_relevance.run(config, output)
    prompters: dict[Row, Prompter] = {
        (name, 0): Prompter(config.points.model_copy(update={"method": method}))
        for method, name in METHODS.items()
    }
    prompters |= dict(_trained(config, output))
    truth = {row["id"]: row for row in Artifact.open(output / "truth").rows()}
    held = {id: row for id, row in truth.items() if row["split"] not in config.generator.splits}
    truth = held or truth
    context = asking(config, output, Prompter(config.points))
    conventions = Conventions(config.evaluate.empty, config.evaluate.at_least)
    groups = groups_of(Artifact.open(output / "records"), truth)
    scores: dict[Row, list[Judged]] = {row: [] for row in (*prompters, (ORACLE, 0), (CEILING, 0))}
    for key in tqdm(context.relevance.keys, desc="benchmark", unit="shard", disable=None, leave=False):
        for row, sample in _shard(context, prompters, key, truth):
            scores[row].append(Judged(metrics.score(sample, conventions), groups[sample.id]))
    found = {row: report(judged, truth, groups, conventions) for row, judged in scores.items()}
    table = _tables(found)
    folder = output / "benchmark"
    folder.mkdir(parents=True, exist_ok=True)
    kept = {f"{name} #{seed}": groups for (name, seed), groups in found.items()}
    write_atomic(folder / "points.json", (json.dumps(kept, indent=1, sort_keys=True) + "\n").encode())
    write_atomic(folder / "points.md", table.encode())
    return table


def _trained(config: Config, output: Path) -> Iterator[tuple[Row, Prompter]]:
    """A generator for each variant and seed; what is already trained is read."""
    for variant in config.benchmark.variants:
        name, changes = VARIANTS[variant]
        for seed in range(config.benchmark.seeds):
            settings = config.generator.model_copy(update={**changes, "seed": seed})
            own = config.model_copy(
                update={
                    "generator": settings,
                    "points": config.points.model_copy(update={"method": "generator"}),
                }
            )
            home = f"benchmark/{variant}_{seed}"
            s2_points.run(own, output, name=home)
            yield (name, seed), Prompter(own.points, read_generator(Artifact.open(output / home)))


def _shard(
    context: Asking, prompters: Mapping[Row, Prompter], key: str, truth: dict[str, Any]
) -> Iterator[tuple[Row, Sample]]:
    """(row of the table, sample) for every sentence with truth in one shard; an image is embedded once."""
    tensors = context.relevance.tensors(key)
    for sha256, records in stage.by_content(context.records, key).items():
        asked = [r for r in records if r.pair.id in truth and f"map/{r.pair.id}" in tensors]
        if not asked:
            continue
        try:
            pixels = images.load(context.root, asked[0].pair.image, context.policy, sha256).pixels
        except images.ImageError:
            for record, row in itertools.product(asked, (*prompters, (ORACLE, 0), (CEILING, 0))):
                yield row, _missing(record, truth[record.pair.id])
            continue
        embedding = context.sam.embed(pixels)
        examples = [example(tensors, record) for record in asked]
        maps = [e.relevance for e in examples]
        rows = [truth[record.pair.id] for record in asked]

        def answers(
            prompts: Sequence[Sequence[Prompt]],
            prompter: Prompter | None,
            embedding: Any = embedding,
            maps: Any = maps,
            examples: Sequence[Example] = examples,
        ) -> list[Answer]:
            look = prompter.look(examples) if prompter else None
            return ask(context.sam, lambda: embedding, prompts, maps, context.rules, look)

        for row, prompter in prompters.items():
            for record, true, answer in zip(asked, rows, answers(prompter(examples), prompter), strict=True):
                yield row, _sample(record, true, answer, answer.choice.index)
        clicks = [innermost(Truth.from_json(true).rle) for true in rows]
        prompts = [[Prompt(click, found)] for click, found in zip(clicks, maps, strict=True)]
        for record, true, answer in zip(asked, rows, answers(prompts, None), strict=True):
            yield (ORACLE, 0), _sample(record, true, answer, answer.choice.index)
            mask = Truth.from_json(true).rle
            ious = [rle.iou(found, mask) for found in answer.candidates.rles]
            yield (CEILING, 0), _sample(record, true, answer, int(np.argmax(ious)))


def innermost(mask: Rle) -> PointSet:
    """One positive point on the pixel of a mask that is farthest from its border."""
    depth = depth_inside(rle.decode(mask))
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return PointSet(np.array([[x, y]], np.float32), np.array([1], np.int8), 1.0, ("oracle",))


def _sample(record: Record, row: dict[str, Any], answer: Answer, chosen: int | None) -> Sample:
    """What one method made of one sentence."""
    prediction = None if chosen is None else answer.candidates.rles[chosen]
    true = Truth.from_json(row).rle
    return Sample(record.pair.id, true, prediction, answer.points, row["split"], row["source"], row["kind"])


def _missing(record: Record, row: dict[str, Any]) -> Sample:
    """Of a sentence whose image cannot be read any more."""
    true = Truth.from_json(row).rle
    return Sample(record.pair.id, true, None, None, row["split"], row["source"], row["kind"])


def _tables(found: Mapping[Row, Mapping[str, Mapping[str, float]]]) -> str:
    """For each split a block of the metrics, and one of mIoU by group."""
    names = list(dict.fromkeys(name for name, _ in found))
    one = next(iter(found.values()))
    blocks: list[str] = []
    for split in sorted(group for group in one if "/" not in group):
        inner = [group for group in one if group.startswith(f"{split}/")]
        kinds = {
            f"{split} (n = {one[split]['n']})": {title: (split, c) for c, title in COLUMNS.items()},
            f"{split}, mIoU": {f"{g.split('/')[1]} ({one[g]['n']})": (g, "miou") for g in inner},
        }
        for corner, columns in kinds.items():
            rows = {
                name: [
                    percent([own[group][metric] for (of, _), own in found.items() if of == name])
                    for group, metric in columns.values()
                ]
                for name in names
            }
            blocks += [markdown(corner, list(columns), rows)] if columns else []
    return "\n".join(blocks)
