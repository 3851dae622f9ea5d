"""Stage 4: chosen masks -> pseudo-labels with a weight, scores and reasons.

    ppt labels CONFIG.yaml --output DIR

Reads DIR/masks and, where there is one, DIR/review.jsonl, what a person decided, and DIR/believed.jsonl, the
quality by which the labels are to teach in place of their own weights. Writes DIR/labels and, joined and
sorted by id, DIR/labels/labels.jsonl:
{"id","image","text","segmentation","scores","weight","reasons","of"}, and "review" where a person decided;
`of` names the masks that were to choose from (`ppt.review.about`). Where one of those files changes, the
labels that it is about are made anew.
"""

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from pipelines import stage
from ppt import labels
from ppt.attempts import attempted
from ppt.config import Config, fingerprint
from ppt.durable import ensure, json_lines
from ppt.manifest import Manifest
from ppt.places import Place
from ppt.quality import BELIEVED, QualityError, read_weights
from ppt.review import FILE_NAME, Decision, ReviewError, about, read_review, reviewed
from ppt.rle import Rle, from_json
from ppt.shard import Failure, Shard
from ppt.store import Artifact
from ppt.types import PseudoLabel

STAGE = "labels"
SCORES = ("predicted_iou", "stability", "agreement", "relevance", "contrast", "area")


@dataclass(frozen=True)
class Context:
    """What one process keeps: the config, the masks it reads, what was decided of their labels, and the
    weights that these are given.
    """

    config: Config
    masks: Artifact
    decisions: dict[str, Decision]
    weights: dict[str, tuple[str, float]]


def run(config: Config, output: Place, fresh: bool = False) -> stage.Summary:
    """Make DIR/labels and its labels.jsonl complete. Raises StaleArtifact, ReviewError, QualityError and the
    errors of what it reads.
    """
    masks = Artifact.open(output / "masks")
    inputs, decisions = {"masks": masks.fingerprint}, dict[str, Decision]()
    weights: dict[str, tuple[str, float]] = {}
    if (review := output / FILE_NAME).exists():
        data = review.read_bytes()  # once: `ppt review serve` may be adding to it
        with _naming(review):
            decisions = read_review(data)
        inputs["review"] = hashlib.sha256(data).hexdigest()
    if (believed := output / BELIEVED).exists():
        data = believed.read_bytes()
        with _naming(believed):
            weights = read_weights(data)
        inputs["believed"] = hashlib.sha256(data).hexdigest()
    manifest = Manifest(
        STAGE,
        schema_version=4,
        config=config.sections("labels"),
        inputs=inputs,
        weights={},
        seed=config.seed,
    )
    plan = {key: [row["id"] for row in masks.rows(key)] for key in masks.keys}
    said = {key: [[repr(decisions.get(id)), weights.get(id)] for id in ids] for key, ids in plan.items()}
    parts = {key: fingerprint(part, said[key]) for key, part in stage.parts(plan, masks).items()}
    with stage.begun(config, output / STAGE, manifest, plan, parts, fresh) as writer:
        make = functools.partial(context, config, output, decisions, weights)
        artifact, summary = stage.fill(writer, shard_of_labels, make, config)
        if artifact is None:
            return summary
        rows = sorted(artifact.rows(), key=lambda row: row["id"])
        ensure(artifact.folder / "labels.jsonl", json_lines(rows))
        ranked = sorted(rows, key=lambda row: (row["weight"], row["id"]))
        shown = [(row["image"], row["segmentation"], f"{row['weight']:.2f} {row['text']}") for row in ranked]
        stage.leave_masks(artifact.folder, shown, config, output)
    return replace(summary, note="; ".join(filter(None, [_told(decisions, rows), _doubted(weights, rows)])))


def take_review(review: Place, output: Place) -> None:
    """Keep a review as DIR/review.jsonl. Raises ReviewError for one that is none."""
    data = review.read_bytes()
    with _naming(review):
        read_review(data)
    ensure(output / FILE_NAME, data)


def take_quality(quality: Place, output: Place) -> None:
    """Keep a quality.jsonl as DIR/believed.jsonl. Raises QualityError for one that is none, or is of other
    masks than those in DIR.
    """
    data = quality.read_bytes()
    with _naming(quality):
        judged = read_weights(data)
        rows = Artifact.open(output / "masks").rows()
        if not any(judged.get(row["id"], ("",))[0] == about(row) for row in rows):
            raise QualityError("is the quality of other masks than those there are now")
    ensure(output / BELIEVED, data)


def context(
    config: Config, output: Place, decisions: dict[str, Decision], weights: dict[str, tuple[str, float]]
) -> Context:
    """The context of one process."""
    return Context(config, Artifact.open(output / "masks"), decisions, weights)


@contextmanager
def _naming(path: Place) -> Iterator[None]:
    """Errors of what is read from a file name it."""
    try:
        yield
    except (ReviewError, QualityError) as error:
        raise type(error)(f"{path}: {error}") from None


def _told(decisions: dict[str, Decision], rows: list[dict]) -> str:
    """What became of a review, for people."""
    if not decisions:
        return ""
    used = sum("review" in row for row in rows)
    lost = sum(reason.startswith("review_passed_over:") for row in rows for reason in row["reasons"])
    unknown = len(decisions.keys() - {row["id"] for row in rows})
    return f"{used} reviewed, {lost} decisions passed over, {unknown} of ids that are not here"


def _doubted(weights: dict[str, tuple[str, float]], rows: list[dict]) -> str:
    """What became of the quality that the labels are to teach by, for people."""
    lost = sum(weights.get(row["id"], (row["of"],))[0] != row["of"] for row in rows)
    return f"{lost} weights passed over, of other masks than those there are now" if lost else ""


def _beside_others(label: PseudoLabel, offered: Sequence[tuple[Rle, Mapping[str, float]]]) -> PseudoLabel:
    """With two more scores of its mask: what else fits the words, and how much of the edge it covers."""
    if label.segmentation is None:
        return label
    others = [(mask, scores["agreement"]) for mask, scores in offered]
    found = {"rival": labels.rival(label.segmentation, others), "edge": labels.edge(label.segmentation)}
    return replace(label, scores=label.scores | {name: round(value, 6) for name, value in found.items()})


def shard_of_labels(context: Context, shard: Shard) -> None:
    """Write one shard: every sentence labelled, and decided by a person where one was; then compared with the
    others of its image.
    """
    config, masks = context.config, context.masks
    by_image: dict[str, list[PseudoLabel]] = {}
    failures: list[Failure] = []
    for row in attempted(shard, STAGE, masks.rows(shard.key), lambda row: [row["id"]], failures):
        offered = [(from_json(one["segmentation"]), {n: one[n] for n in SCORES}) for one in row["candidates"]]
        mask, own = (None, {}) if row["chosen"] is None else offered[row["chosen"]]
        scores = {name: row[name] for name in ("peak", "sure")} | own
        reasons = (*row["point_reasons"], *(r for r in row["reasons"] if r not in row["point_reasons"]))
        made = labels.label(
            row["id"], row["image"], row["text"], mask, scores, reasons,
            config.labels.min_stability, config.labels.min_agreement,
        )  # fmt: skip
        made = replace(made, of=about(row))
        of, weight = context.weights.get(row["id"], ("", 0.0))
        if of == made.of:
            made = labels.believed(made, weight)
        if row["id"] in context.decisions:
            size = row["height"], row["width"]
            made = reviewed(made, context.decisions[row["id"]], offered, size)
        made = _beside_others(made, offered)
        by_image.setdefault(row["image"], []).append(made)
    rows = []
    for group in by_image.values():
        clashes = labels.conflicts(group, config.labels.conflict_iou)
        for made in group:
            row = made.to_json()
            rows.append({**row, "reasons": [*row["reasons"], *clashes.get(made.id, ())]})
    shard.write(rows, None, failures)
