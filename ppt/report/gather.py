"""A run folder -> what the report shows. Of the truth it reads only where the run was evaluated."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ppt import rle, times
from ppt.durable import json_object, parsed_lines
from ppt.places import Place
from ppt.report import words
from ppt.rle import Rle
from ppt.shard import Failure
from ppt.store import Artifact
from ppt.types import PointSet, Record, RelevanceMap

STAGES = (
    "records",
    "relevance",
    "points",
    "masks",
    "labels",
    "segmenter",
    "predictions",
    "views",
    "quality",
    "truth",
    "evaluate",
)

TRAINED = ("points", "segmenter")
"""Stages that may go on with what they have learned, whatever changes."""


class ReportError(ValueError):
    """A folder that holds no run to report on; the text says what is missing and what to do."""


@dataclass(frozen=True)
class Candidate:
    """One of SAM's masks and its scores by name: predicted_iou, stability, agreement, contrast, area ... ."""

    mask: Rle
    scores: dict[str, float]


@dataclass(frozen=True)
class Predicted:
    """What the segmenter makes of a pair: its mask, None where it says that nothing is meant, and how sure it
    is, in [0, 1].
    """

    mask: Rle | None
    sure: float


@dataclass(frozen=True)
class Other:
    """What another run made of a pair. nearness: IoU of its mask with ours, 0 where one of them has none and
    None where neither has.
    """

    weight: float | None
    quality: float | None
    iou: float | None
    mask: Rle | None
    nearness: float | None


@dataclass(frozen=True)
class Item:
    """One pair and what every stage made of it so far. `iou` and `truth` only where the run was evaluated.

    quality: in [0, 1]; band, what to do with the label; outcome, what was found; and doubts, why. None and ""
    where it was not judged.
    """

    record: Record
    weight: float | None = None
    quality: float | None = None
    band: str = ""
    outcome: str = ""
    doubts: tuple[str, ...] = ()
    labelled: bool = False
    of: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    iou: float | None = None
    relevance: RelevanceMap | None = None
    points: PointSet | None = None
    candidates: tuple[Candidate, ...] = ()
    chosen: int | None = None
    truth: Rle | None = None
    predicted: Predicted | None = None
    other: Other | None = None

    @property
    def id(self) -> str:
        return self.record.pair.id

    @property
    def worth(self) -> float | None:
        """How far the label is to be believed: its quality, before that is told its weight."""
        return self.weight if self.quality is None else self.quality


@dataclass(frozen=True)
class Learned:
    """How the point generator was taught: rows {step, shares, admitted, referring} of the curriculum, rows
    {step, losses...} of the log, and sheets of pictures (what they show, file).
    """

    schedule: tuple[dict[str, Any], ...]
    log: tuple[dict[str, Any], ...]
    sheets: tuple[tuple[str, Place], ...]


@dataclass(frozen=True)
class Run:
    """Everything the page says about a run, and its items, worst first. Items carry no pictures yet.

    times: stage -> seconds that it took, where that was noted.
    """

    folder: Place
    stages: dict[str, Artifact]
    items: tuple[Item, ...]
    failures: tuple[Failure, ...]
    metrics: dict[str, Any]
    learned: Learned | None = None
    times: dict[str, float] = field(default_factory=dict)

    @property
    def reviewable(self) -> bool:
        """Whether there are labels to decide on, and masks to choose from."""
        return "labels" in self.stages and "masks" in self.stages

    @property
    def of(self) -> dict[str, str]:
        """Id -> what a decision on its label is about."""
        return {item.id: item.of for item in self.items}

    @property
    def stranded(self) -> tuple[Failure, ...]:
        """Failures of rows that never became an item; a refused row may bear the id of one that did."""
        known = {item.id for item in self.items}
        return tuple(row for row in self.failures if row.stage == "records" or row.id not in known)

    def mixtures(self) -> list[str]:
        """Stages that were made from another version of one they read than the one that lies there now."""
        return [
            f"“{name}” was made from another “{source}” than the one that is here now; run it again."
            for name in self.stages
            for source in self._others(name)
            if name not in TRAINED
        ]

    def kept(self) -> list[str]:
        """Stages that were trained on another version of what they learn from, and have been kept."""
        return [
            f"“{name}” has learned from other “{source}” than those that are here now."
            for name in TRAINED
            for source in self._others(name)
        ]

    def _others(self, name: str) -> list[str]:
        """What a stage reads of which another version lies here now."""
        inputs = self.stages[name].manifest.inputs if name in self.stages else {}
        return [
            source
            for source, known in inputs.items()
            if source != name  # the stage `truth` reads a file of that name
            and source in self.stages
            and self.stages[source].fingerprint != known
        ]

    def losses(self) -> list[tuple[str, int]]:
        """Why items carry no weight, most frequent first: failures by stage and error, labels by reason."""
        counts = Counter(f"{failure.stage} · {words.plain(failure.error)}" for failure in self.failures)
        for item in self.items:
            if item.weight == 0:
                lost = [reason for reason in item.reasons if reason.partition(":")[0] in words.LOSSES]
                counts.update({f"labels · {words.kind(reason)}" for reason in lost} or {"labels · weight 0"})
        return sorted(counts.items(), key=lambda row: (-row[1], row[0]))


def read_run(output: Place) -> Run:
    """The run in the folder `output`: its records at least, and every later stage that is complete.

    Raises ReportError when there is no complete `records` artifact.
    """
    there = [name for name in STAGES if (output / name / "index.json").exists()]
    if "evaluate" not in there:
        there = [name for name in there if name != "truth"]  # it stays locked until the run is scored
    if "records" not in there:
        raise ReportError(f"{output} holds no finished records stage, so there is nothing to show")
    stages = {name: Artifact.open(output / name) for name in there}
    failures = tuple(failure for stage in stages.values() for failure in stage.failures())
    metrics = json_object(output / "evaluate" / "metrics.json") if "evaluate" in stages else None
    items = sorted(_joined(stages, failures), key=_worst_first)
    learned = _learned(output / "points") if "points" in stages else None
    return Run(output.resolve(), stages, tuple(items), failures, metrics or {}, learned, times.told(output))


def _learned(folder: Place) -> Learned:
    training = folder / "training"
    schedule, log = (
        tuple(parsed_lines(path.read_bytes())) if path.exists() else ()
        for path in (training / "schedule.json", training / "log.jsonl")
    )
    sheets = [("Images of one thing, with their pseudo-masks", folder / "object_centric" / "preview.png")]
    sheets.append(("Mosaics of them", folder / "mosaics" / "preview.png"))
    for path in sorted(folder.glob("referring_*/preview.png")):
        number = int(path.parent.name.removeprefix("referring_")) + 1
        sheets.append((f"Referring pairs, round {number}: believed most, and least", path))
    points = sorted(training.glob("points_*.png"))
    sheets += [
        (f"Points after step {int(path.stem[7:]):,}", path)
        for path in dict.fromkeys((*points[:1], *points[-1:]))
    ]
    return Learned(schedule, log, tuple(sheet for sheet in sheets if sheet[1].exists()))


def _worst_first(item: Item) -> tuple[float, str]:
    return (-1.0 if item.worth is None else item.worth), item.id


def with_pictures(run: Run, items: Sequence[Item]) -> list[Item]:
    """`items` in order, with maps, points, candidates, the segmenter's masks and (in an evaluated run) truth
    read from disk.
    """
    wanted = {item.id: item for item in items}
    if "masks" in run.stages:
        for row in run.stages["masks"].rows():
            if row["id"] in wanted:
                wanted[row["id"]] = replace(wanted[row["id"]], **_prompted(row, wanted[row["id"]]))
    if "relevance" in run.stages:
        for id, values in _maps(run.stages["relevance"], set(wanted)):
            item = wanted[id]
            wanted[id] = replace(item, relevance=RelevanceMap(values, item.record.height, item.record.width))
    if "predictions" in run.stages:
        for row in run.stages["predictions"].rows():
            if row["id"] in wanted:
                mask = rle.from_json(row["segmentation"]) if row["segmentation"] else None
                wanted[row["id"]] = replace(wanted[row["id"]], predicted=Predicted(mask, row["sure"]))
    if "truth" in run.stages and not run.mixtures():
        for row in run.stages["truth"].rows():
            if row["id"] in wanted:
                wanted[row["id"]] = replace(wanted[row["id"]], truth=rle.from_json(row["segmentation"]))
    return [wanted[item.id] for item in items]


def _joined(stages: Mapping[str, Artifact], failures: Sequence[Failure]) -> Iterator[Item]:
    labels = {row["id"]: row for row in stages["labels"].rows()} if "labels" in stages else {}
    scores = stages["evaluate"].rows() if "evaluate" in stages else ()
    scored = {row["id"]: float(row["iou"]) for row in scores}
    judged = {row["id"]: row for row in stages["quality"].rows()} if "quality" in stages else {}
    told: dict[str, tuple[str, ...]] = {}
    for failure in failures:
        if failure.stage != "records":  # those are of refused rows, not of the kept one that shares their id
            told[failure.id] = (*told.get(failure.id, ()), f"{failure.stage}: {failure.message}")
    for row in stages["records"].rows():
        record = Record.from_json(row)
        id = record.pair.id
        item = Item(record, failures=told.get(id, ()), iou=scored.get(id))
        if id in labels:
            made = {name: labels[id][name] for name in ("weight", "scores")}
            labelled = labels[id]["segmentation"] is not None
            told_of = {"reasons": tuple(labels[id]["reasons"]), "of": labels[id].get("of", "")}
            item = replace(item, **made, **told_of, labelled=labelled)
        if id in judged:
            own = judged[id]
            doubts = tuple(own["reasons"]) if item.labelled else ()
            item = replace(
                item, quality=own["quality"], band=own["band"], outcome=own.get("outcome", ""), doubts=doubts
            )
        yield item


def _prompted(row: dict[str, Any], item: Item) -> dict[str, Any]:
    candidates = [
        Candidate(
            rle.from_json(candidate["segmentation"], item.record.height, item.record.width),
            {name: float(score) for name, score in candidate.items() if isinstance(score, float | int)},
        )
        for candidate in row["candidates"]
    ]
    return {
        "points": PointSet.from_rows(row["points"], row["point_reasons"]),
        "candidates": tuple(candidates),
        "chosen": row["chosen"],
        # A label's own reasons repeat those of the choice; both are shown once.
        "reasons": tuple(dict.fromkeys((*row["point_reasons"], *row["reasons"], *item.reasons))),
    }


def _maps(relevance: Artifact, ids: set[str]) -> Iterator[tuple[str, np.ndarray]]:
    """The maps of `ids`, opening only the shards that hold one."""
    for key in relevance.keys:
        here = [row["id"] for row in relevance.rows(key) if row["id"] in ids]
        tensors = relevance.tensors(key) if here else {}
        yield from ((id, tensors[f"map/{id}"]) for id in here)
