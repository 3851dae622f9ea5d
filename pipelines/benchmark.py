"""Ways to make points, side by side on the same images, maps and SAM embeddings; judged against the truth.

    ppt benchmark points CONFIG.yaml --output DIR [--pairs PAIRS --truth TRUTH]

Makes DIR/records and DIR/relevance as a run would, prompts SAM with the points of every method in one pass,
and writes DIR/benchmark/points.json and points.md. The oracle rows click at the innermost pixel of the truth:
a ceiling for points, and nothing that a run could do.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from pipelines import s0_records, s1_relevance, stage
from pipelines.asking import Asking, asking, example
from ppt import metrics, rle
from ppt.config import Config
from ppt.durable import write_atomic
from ppt.metrics import Conventions, Sample, Score
from ppt.points.prompter import Prompter
from ppt.prompting import Answer, Prompt, ask
from ppt.records import images
from ppt.rle import Rle
from ppt.store import Artifact
from ppt.types import PointSet, Record, Truth

METHODS = {"peak": "peak", "surgery": "CLIP Surgery points", "read": "READ points"}
ORACLE, CEILING = "oracle point", "oracle point, oracle choice"
COLUMNS = {"miou": "mIoU", "oiou": "oIoU", "prec@0.5": "Prec@0.5", "pointm": "PointM"}


def points(config: Config, output: Path) -> str:
    """Run the comparison; returns the table as Markdown, in percent, one block a split."""
    s0_records.run(config, output)
    s1_relevance.run(config, output)
    truth = {row["id"]: row for row in Artifact.open(output / "truth").rows()}
    context = asking(config, output, Prompter(config.points))
    conventions = Conventions(config.evaluate.empty, config.evaluate.at_least)
    scores: dict[str, list[Score]] = {name: [] for name in (*METHODS.values(), ORACLE, CEILING)}
    for key in tqdm(context.relevance.keys, desc="benchmark", unit="shard", disable=None, leave=False):
        for name, sample in _shard(context, config, key, truth):
            scores[name].append(metrics.score(sample, conventions))
    for rows in scores.values():
        lost = truth.keys() - {score.id for score in rows}
        rows += [metrics.score(_lost(truth[id]), conventions) for id in sorted(lost)]
    found = {name: metrics.report(rows, conventions) for name, rows in scores.items()}
    table = _table(found)
    folder = output / "benchmark"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "points.json", (json.dumps(found, indent=1, sort_keys=True) + "\n").encode())
    write_atomic(folder / "points.md", table.encode())
    return table


def _shard(context: Asking, config: Config, key: str, truth: dict[str, Any]) -> Iterator[tuple[str, Sample]]:
    """(row of the table, sample) for every sentence with truth in one shard; an image is embedded once."""
    tensors = context.relevance.tensors(key)
    for sha256, records in stage.by_content(context.records, key).items():
        asked = [r for r in records if r.pair.id in truth and f"map/{r.pair.id}" in tensors]
        if not asked:
            continue
        embedding = context.sam.embed(
            images.load(context.root, asked[0].pair.image, context.policy, sha256).pixels
        )
        examples = [example(tensors, record) for record in asked]
        maps = [e.relevance for e in examples]
        rows = [truth[record.pair.id] for record in asked]
        for method, name in METHODS.items():
            prompts = Prompter(config.points.model_copy(update={"method": method}))(examples)
            answers = ask(context.sam, lambda it=embedding: it, prompts, maps, context.rules)
            for record, row, answer in zip(asked, rows, answers, strict=True):
                yield name, _sample(record, row, answer, answer.choice.index)
        true = [Truth.from_json(row).rle for row in rows]
        prompts = [[Prompt(innermost(mask), m)] for mask, m in zip(true, maps, strict=True)]
        answers = ask(context.sam, lambda it=embedding: it, prompts, maps, context.rules)
        for record, row, answer, mask in zip(asked, rows, answers, true, strict=True):
            yield ORACLE, _sample(record, row, answer, answer.choice.index)
            nearest = max(answer.candidates.rles, key=lambda found, mask=mask: rle.iou(found, mask))
            yield CEILING, _sample(record, row, answer, answer.candidates.rles.index(nearest))


def innermost(mask: Rle) -> PointSet:
    """One positive point on the pixel of a mask that is farthest from its border."""
    depth = cv2.distanceTransform(np.pad(rle.decode(mask), 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return PointSet(np.array([[x, y]], np.float32), np.array([1], np.int8), 1.0, ("oracle",))


def _sample(record: Record, row: dict[str, Any], answer: Answer, chosen: int | None) -> Sample:
    """What one method made of one sentence."""
    prediction = None if chosen is None else answer.candidates.rles[chosen]
    true = Truth.from_json(row).rle
    return Sample(record.pair.id, true, prediction, answer.points, row["split"], row["source"], row["kind"])


def _lost(row: dict[str, Any]) -> Sample:
    """A sentence that never reached SAM: it stays in every denominator."""
    return Sample(row["id"], Truth.from_json(row).rle, None, None, row["split"], row["source"], row["kind"])


def _table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown: a block for each split, a row for each way to make points, figures in percent."""
    splits = sorted({split for report in found.values() for split in report["by_split"]})
    lines: list[str] = []
    for split in splits:
        n = next(iter(found.values()))["by_split"][split]["n"]
        lines += [
            f"| {split} (n = {n}) | {' | '.join(COLUMNS.values())} |",
            "| --- |" + " ---: |" * len(COLUMNS),
        ]
        for name, report in found.items():
            row = report["by_split"][split]
            lines.append(f"| {name} | " + " | ".join(f"{100 * row[c]:.1f}" for c in COLUMNS) + " |")
        lines.append("")
    return "\n".join(lines)
