"""Stage 6: pseudo-labels, and the segmenter they taught, against the truth, which stage 0 locked away and no
other stage opens.

    ppt evaluate CONFIG.yaml --output DIR [--nta] [--against OTHER]

Reads DIR/records, DIR/labels, the points of DIR/masks, DIR/predictions where a segmenter was asked,
DIR/quality and DIR/truth. Writes DIR/evaluate: metrics.json, every score, in whole and in groups, with the
conventions it was taken under, and what the quality is worth; per_sample.jsonl and segmenter.jsonl, sorted by
id; with --nta also nta.jsonl. Only pairs that have truth are scored; one that was lost on the way, at any
stage, is a missing prediction and counts as such.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipelines import s6_activation, s6_quality, s6_samples, stage
from ppt import metrics
from ppt.config import Config
from ppt.durable import ensure, json_lines
from ppt.manifest import Manifest
from ppt.metrics import Conventions, Sample, Score
from ppt.places import Place
from ppt.records import images
from ppt.report import preview
from ppt.store import Artifact, StaleArtifact, begin

STAGE = "evaluate"
PREVIEWED = 24
COLUMNS = {
    "n": "n", "missing": "missing", "miou": "mIoU", "oiou": "oIoU", "prec@0.5": "P@0.5", "prec@0.7": "P@0.7",
    "prec@0.9": "P@0.9", "pointm": "PointM", "giou": "gIoU", "n_acc": "N-acc", "t_acc": "T-acc",
}  # fmt: skip


@dataclass(frozen=True)
class Evaluation:
    """What `run` found: the content of metrics.json, or None where there is no truth; the conventions in a
    few words; and what the config asks for and was not made so.
    """

    metrics: dict[str, Any] | None
    conventions: str = ""
    unmet: tuple[str, ...] = ()
    stage: str = STAGE
    skipped: int = 0

    @property
    def items(self) -> int:
        """How many samples were scored."""
        return self.metrics["labels"]["n"] if self.metrics else 0

    def line(self) -> str:
        """One line for people: "evaluate: 120 samples, 3 missing; miou 0.612, ... (fractions; ...)"."""
        if self.metrics is None:
            return f"{self.stage}: no truth, so nothing was scored (name the true masks with records.truth)"
        scores = self.metrics["labels"]
        counts = f"{scores['n']} samples, {scores['missing']} missing"
        told = _told(scores)
        if "segmenter" in self.metrics:
            own = self.metrics["segmenter"]["all"]
            told += f"; segmenter, {own['missing']} missing: {_told(own)}"
        if "quality" in self.metrics:
            told += f"; {_of_quality(self.metrics['quality'])}"
        if "nta" in self.metrics:
            densities = (f"{name} {one['density'][0]:.3f}" for name, one in self.metrics["nta"].items())
            told += f"; non-target density: {', '.join(densities) or 'no truth names a distractor'}"
        return f"{self.stage}: {counts}; {told} (fractions; {self.conventions})"

    def splits(self) -> Iterator[str]:
        """A table for people, of labels and segmenter in every split; nothing where there is but one. Then
        what is unmet.
        """
        found = self.metrics or {}
        own = found.get("segmenter", {}).get("by_split", {})
        rows = [
            (split, of, scores)
            for split, labels in found.get("by_split", {}).items()
            for of, scores in (("labels", labels), ("segmenter", own.get(split)))
            if scores is not None
        ]
        names = [name for name in COLUMNS if any(name in scores for _, _, scores in rows)]
        if len({split for split, _, _ in rows}) > 1:
            wide = max(len(split) for split, _, _ in rows)
            yield f"  {'':<{wide}} {'':<9} " + " ".join(f"{COLUMNS[name]:>7}" for name in names)
            for split, of, scores in rows:
                yield f"  {split:<{wide}} {of:<9} " + " ".join(_cell(scores.get(name)) for name in names)
        yield from (f"  note: {one}" for one in self.unmet)


def run(config: Config, output: Place, fresh: bool = False) -> Evaluation:
    """Make DIR/evaluate complete; without truth nothing is written.

    Raises StaleArtifact where DIR/truth is of other records, or a segmenter of other labels; ValueError
    naming the id where a mask differs in size from its truth.
    """
    if not (output / "truth").exists():
        return Evaluation(None)
    records, truth = Artifact.open(output / "records"), Artifact.open(output / "truth")
    masks, labels = Artifact.open(output / "masks"), Artifact.open(output / "labels")
    if truth.manifest.inputs["records"] != records.fingerprint:
        raise StaleArtifact(f"{truth.folder}: belongs to other records; run `ppt records` with records.truth")
    segmenter, predictions = (_made(output / name) for name in ("segmenter", "predictions"))
    quality = stage.quality_of(output, labels)
    _check_of_one_run(config, labels, segmenter, predictions)
    samples = s6_samples.of_labels(truth, records, masks, labels)
    conventions = s6_samples.standing(config, records)
    if conventions.unit == "first_sentence":
        samples = s6_samples.first_of_each(samples, truth, records)
    if not samples:
        return Evaluation(None)
    inputs = {"records": records, "labels": labels, "masks": masks, "truth": truth}
    if predictions is not None:
        inputs["predictions"] = predictions
    if quality is not None:
        inputs["quality"] = quality
    if segmenter is not None and config.evaluate.nta:
        inputs["segmenter"] = segmenter
    manifest = Manifest(
        STAGE,
        schema_version=2,
        config=config.sections(STAGE),
        inputs={name: artifact.fingerprint for name, artifact in inputs.items()},
        weights={},
        seed=config.seed,
    )
    told = conventions.line()
    plan = {"00000": [sample.id for sample in samples]}
    parts = stage.parts(plan, *manifest.inputs.values())
    with begin(output / STAGE, manifest, plan, fresh, parts) as writer:
        scores = [metrics.score(sample, conventions) for sample in samples]
        rows = [score.to_json() for score in scores]
        refused = len(truth.failures())
        found = {**metrics.report(scores, conventions), "truth_refused": refused}
        if predictions is not None:
            drawn = s6_samples.as_predicted(conventions, predictions)
            own = [metrics.score(one, drawn) for one in s6_samples.of_segmenter(samples, predictions)]
            found["segmenter"] = _by_segmenter(own, drawn)
            told += f"; segmenter: {drawn.binarisation}"
            ensure(writer.folder / "segmenter.jsonl", json_lines([score.to_json() for score in own]))
        if quality is not None:
            found["quality"] = s6_quality.measured(quality, scores)
        if config.evaluate.nta:
            found["nta"], each = s6_activation.measured(config, output, samples, segmenter)
            ensure(writer.folder / "nta.jsonl", json_lines(each))
        for shard in writer.missing:
            shard.write(rows)
        ensure(writer.folder / "per_sample.jsonl", json_lines(rows))
        ensure(writer.folder / "metrics.json", json_lines([found]))
        artifact = writer.finish()
        if not (artifact.folder / "preview.png").exists():
            _preview(artifact.folder, samples, scores, labels, config, output)
    return Evaluation(found, told, tuple(s6_samples.unmet(config, records, predictions)))


def _made(folder: Place) -> Artifact | None:
    """The artifact, where it was made."""
    return Artifact.open(folder) if (folder / "index.json").exists() else None


def _check_of_one_run(
    config: Config, labels: Artifact, segmenter: Artifact | None, predictions: Artifact | None
) -> None:
    """Raises StaleArtifact where a segmenter was taught by other labels and is not to be kept, or another one
    was asked.
    """
    taught_by = segmenter and segmenter.manifest.inputs["labels"]
    if segmenter is not None and taught_by != labels.fingerprint and not config.keep_trained:
        raise StaleArtifact(
            f"{segmenter.folder}: was taught by other labels; run `ppt segmenter --fresh` and"
            " `ppt predictions`, keep it with `--set keep_trained=true`, or remove both folders"
        )
    asked = predictions and predictions.manifest.inputs["segmenter"]
    if segmenter is not None and asked not in (None, segmenter.fingerprint):
        raise StaleArtifact(
            f"{segmenter.folder}: is not the one whose predictions there are; run `ppt predictions`"
        )


def without_truth() -> Evaluation:
    """What there is to say where no truth is given: nothing is scored, and nothing is wrong."""
    return Evaluation(None)


def _by_segmenter(scores: list[Score], conventions: Conventions) -> dict[str, Any]:
    """As the labels are reported, but for PointM."""
    found = metrics.report(scores, conventions)
    groups = {name: members for name, members in found.items() if name.startswith("by_")}
    by = {name: {own: _pointless(them) for own, them in members.items()} for name, members in groups.items()}
    return {"all": _pointless(found["labels"]), **by, "conventions": found["conventions"]}


def _pointless(scores: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in scores.items() if name != "pointm"}


def _told(scores: dict[str, float]) -> str:
    return ", ".join(f"{name} {scores[name]:.3f}" for name in scores if name not in ("n", "missing"))


def _of_quality(found: dict[str, Any]) -> str:
    rank = "no rank" if found["spearman"] is None else f"{found['spearman']:.3f}"
    return f"quality to IoU {rank} (Spearman), miou {found['without_worst']:.3f} without its worst fifth"


def _cell(value: float | None) -> str:
    return f"{'' if value is None else value if isinstance(value, int) else f'{value:.3f}':>7}"


def _preview(
    folder: Place, samples: list[Sample], scores: list[Score], labels: Artifact, config: Config, output: Place
) -> None:
    """preview.png: predictions filled, truth outlined, from the worst to the best, evenly spread."""
    rows = {row["id"]: row for row in labels.rows()}
    ranked = sorted(zip(samples, scores, strict=True), key=lambda pair: (pair[1].iou, pair[0].id))
    shown = [pair for pair in ranked if pair[0].id in rows]
    root, policy = stage.images_root(config, output), stage.image_policy(config)
    tiles, captions = [], []
    for sample, score in shown[:: max(1, len(shown) // PREVIEWED)][:PREVIEWED]:
        row = rows[sample.id]
        try:
            pixels = images.load(root, row["image"], policy).pixels
        except images.ImageError:
            continue
        if sample.prediction is not None:
            pixels = preview.overlay_mask(pixels, sample.prediction)
        tiles.append(preview.overlay_mask(pixels, sample.truth, preview.TRUTH, alpha=0.0))
        captions.append(f"{score.iou:.2f} {row['text']}")
    stage.leave_preview(folder, tiles, captions)
