"""Stage 6, its samples: what is scored against what, and under which conventions it was made."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ppt import rle
from ppt.config import Config
from ppt.metrics import Conventions, Sample, conventions, groups
from ppt.rle import Rle
from ppt.store import Artifact
from ppt.types import PointSet, PseudoLabel, Truth

REFER = "refer"
"""The format whose sentences have two spellings."""


def standing(config: Config, records: Artifact) -> Conventions:
    """Where the labels' scores stand: the evaluation as the config has it, the data as they were read."""
    how, read = config.evaluate, _read(records)
    formats = {source["format"] for source in read.get("sources", ())}
    sentence = f"REFER's `{read['sentence']}`" if REFER in formats else conventions.OWN_TEXT
    if REFER in formats and formats != {REFER}:
        sentence = f"{sentence}, of others {conventions.OWN_TEXT}"
    overlap = read.get("overlap", "any")
    return Conventions(how.empty, how.at_least, how.unit, sentence, how.resolution, overlap=overlap)


def as_predicted(standing: Conventions, predictions: Artifact) -> Conventions:
    """Where the segmenter's scores stand, whose masks were cut as they were cut."""
    cut = _threshold(predictions)
    return standing if cut is None else replace(standing, binarisation=conventions.above(cut))


def unmet(config: Config, records: Artifact, predictions: Artifact | None) -> list[str]:
    """What the config asks for and what lies there was not made with, in words, with the remedy.

    Scores are told under what was made; a preset by itself makes nothing anew.
    """
    read = _read(records)
    asked = {"overlap": config.records.overlap}
    if any(source["format"] == REFER for source in read.get("sources", ())):
        asked["sentence"] = config.records.sentence
    told = [
        f"records.{name} is {value} in the config, but DIR/records was made with {read[name]};"
        " run `ppt records --fresh` and what follows it"
        for name, value in sorted(asked.items())
        if read.get(name, value) != value
    ]
    cut = predictions and _threshold(predictions)
    if cut is not None and cut != config.predictions.threshold:
        told.append(
            f"predictions.threshold is {config.predictions.threshold:g} in the config, but DIR/predictions"
            f" was made with {cut:g}; run `ppt predictions --fresh`"
        )
    return told


def of_labels(truth: Artifact, records: Artifact, masks: Artifact, labels: Artifact) -> list[Sample]:
    """One sample for every row of the truth, which is sorted by id.

    A label without a mask is a missing prediction: no candidate was believable, or there was no evidence to
    ask with; that is no statement that nothing is meant, and nothing is ever taught by it. A pair whose image
    could not be read has no text here, and is in no group by its sentence.
    """
    predictions = {row["id"]: PseudoLabel.from_json(row).segmentation for row in labels.rows()}
    points = {row["id"]: PointSet.from_rows(row["points"]) for row in masks.rows()}
    known = {row["id"]: (row["sha256"], row["text"]) for row in records.rows()}
    samples: list[Sample] = []
    for row in truth.rows():
        true = Truth.from_json(row)
        image, text = known.get(true.id, ("", ""))
        split, more = (row["split"], row["source"], row["kind"]), groups.of(true.rle, text, true.distractors)
        samples.append(
            Sample(true.id, true.rle, predictions.get(true.id), points.get(true.id), *split, image, more)
        )
    return samples


def first_of_each(samples: Sequence[Sample], truth: Artifact, records: Artifact) -> list[Sample]:
    """Of the sentences about one thing (`ref`) of an image that which the records have first; of the others
    all. As CRIS and ETRIS judge while they train (DerrickWang005/CRIS.pytorch, utils/dataset.py: `sents[0]`).
    """
    place: dict[str, int] = {}
    for key in records.keys:  # those that failed are planned, too
        for id in records.items(key):
            place.setdefault(id, len(place))
    refs = {row["id"]: row.get("ref", "") for row in truth.rows()}
    first: dict[tuple[str, str], Sample] = {}
    for sample in sorted(samples, key=lambda one: place.get(one.id, len(place))):
        if refs[sample.id]:
            first.setdefault((sample.image, refs[sample.id]), sample)
    kept = {sample.id for sample in first.values()}
    return [sample for sample in samples if sample.id in kept or not refs[sample.id]]


def of_segmenter(samples: Sequence[Sample], predictions: Artifact) -> Iterator[Sample]:
    """The samples with the segmenter's masks in place of the labels', and without points: it has none.

    Where it says that nothing is meant the mask is empty; where it was not asked, or the image could not be
    read, there is none.
    """
    rows = {row["id"]: row["segmentation"] for row in predictions.rows()}
    for sample in samples:
        mask = _mask(rows[sample.id], sample.truth) if sample.id in rows else None
        yield replace(sample, prediction=mask, points=None)


def _mask(segmentation: dict[str, Any] | None, truth: Rle) -> Rle:
    if segmentation is not None:
        return rle.from_json(segmentation)
    return rle.encode(np.zeros((truth.height, truth.width), bool))


def _read(records: Artifact) -> dict[str, Any]:
    """The settings that the records were really made with."""
    return records.manifest.config.get("records", {})


def _threshold(predictions: Artifact) -> float | None:
    """Where the segmenter's masks were cut; None where SAM drew them."""
    made = predictions.manifest.config
    if "sam" in made:
        return None
    return made.get("predictions", {}).get("threshold", 0.5)
