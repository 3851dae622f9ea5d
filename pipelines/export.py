"""Labels, or what the segmenter predicted, in the formats of other tools.

    ppt export DIR --format coco --to PATH

Reads DIR/records, DIR/labels and DIR/quality (or DIR/predictions), and the images where they come along.
Writes the folder PATH, with a card (README.md) and export.json, which says what it was made from; how a
format looks is said in its file of `ppt/exports`.
"""

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from pipelines import stage
from ppt import __version__, rle
from ppt.config import Config
from ppt.durable import json_object
from ppt.exports import formats, place
from ppt.exports.card import About, Model, card, loss
from ppt.exports.carrier import Carrier, Way
from ppt.exports.items import ExportError, Labelled, Tally, Wishes
from ppt.exports.selection import Selection, select
from ppt.exports.streams import Job
from ppt.places import on_disk
from ppt.quality import Band
from ppt.records.images import ImagePolicy
from ppt.store import Artifact, ArtifactError
from ppt.types import Record

MadeFrom = Literal["labels", "predictions"]
_FILES = {"imagefolder": "{split}/**", "webdataset": "{split}-*.tar"}
"""What Hugging Face's `datasets` is told to load of a split, in the formats that it loads."""
_PARTS = {"clip": ("relevance", "where the sentence is"), "sam": ("masks", "draws the masks")}
_EMBEDDED = Path(__file__).parents[1] / "ppt/backbones/tiny/weights.json"


@dataclass(frozen=True)
class Asked:
    """What is to be exported, and how. way: how images come along; None: as the format needs them."""

    format: str
    made_from: MadeFrom = "labels"
    selection: Selection = field(default_factory=Selection)
    wishes: Wishes = field(default_factory=Wishes)
    way: Way | None = None
    licence: str = "unknown"


def run(directory: Path, to: Path, asked: Asked) -> Tally:
    """Write the export `to` of the run in `directory`. What is there stays there unless this one is whole.

    Raises ExportError where nothing is left to export, ArtifactError where the run has no such labels, and
    FileNotFoundError where nobody knows where its images are.
    """
    format, way = formats.named(asked.format, asked.wishes, asked.way)
    records, made = Artifact.open(directory / "records"), Artifact.open(directory / asked.made_from)
    judged = stage.quality_of(directory, made) if asked.made_from == "labels" else None
    root = directory
    if way != "none":
        root = on_disk(stage.images_root(Config(), directory), "ppt export: the images' folder")
    tally = Tally()
    with place.replacing(to) as (folder, finish):
        job = Job(
            Carrier(root, ImagePolicy.of(records.manifest.config["records"]), way, folder),
            asked.wishes,
            tally,
        )
        with tqdm(
            total=records.index["items"] - records.index["failed"],
            desc=asked.format, unit="item", disable=not sys.stderr.isatty(), leave=False,
        ) as bar:  # fmt: skip
            groups = _ticking(items(records, made, tally, judged), bar)
            formats.write(format, job, select(groups, asked.selection, tally))
        if not tally.masks.total():
            raise ExportError(f"{directory}: nothing is left to export ({_why(tally) or 'it has no items'})")
        about = _about(directory, asked, sorted(tally.masks))
        (folder / "README.md").write_text(card(about, tally), encoding="utf-8")
        finish(_marker(asked, way, {"records": records, asked.made_from: made, "quality": judged}, tally))
    return tally


def items(
    records: Artifact, made: Artifact, tally: Tally, judged: Artifact | None = None
) -> Iterator[list[Labelled]]:
    """The items of each image, in the records' order, a shard in memory at a time. judged: the quality of the
    labels; without it a label counts by its weight, and a prediction by how sure it is.

    Raises ArtifactError where the labels are of other records.
    """
    other = f"{made.folder}: is not of {records.folder}; run its stage again"
    if set(made.keys) - set(records.keys):
        raise ArtifactError(other)
    for key in records.keys:
        rows = {row["id"]: row for row in made.rows(key)} if key in made.keys else {}
        told = {row["id"]: row for row in judged.rows(key)} if judged and rows else {}
        by_image: dict[str, list[Labelled]] = {}
        for record in map(Record.from_json, records.rows(key)):
            row = rows.pop(record.pair.id, None)
            if row is None:
                tally.leave("no label")
            elif (row["image"], row["text"]) != (record.pair.image, record.pair.text):
                raise ArtifactError(other)
            else:
                item = _labelled(record, row, told.get(record.pair.id))
                by_image.setdefault(record.pair.image, []).append(item)
        if rows:
            raise ArtifactError(other)
        yield from by_image.values()


def summary(asked: Asked, to: Path, tally: Tally) -> list[str]:
    """What was exported, a line each."""
    splits = ", ".join(f"{split} {count}" for split, count in sorted(tally.masks.items()))
    lines = [f"{asked.format}: {tally.masks.total()} masks in {tally.images.total()} images ({splits}); {to}"]
    if tally.left:
        lines.append(f"left out {tally.left.total()}: {_why(tally)}")
    told = loss(tally)
    lines += [f"polygons: {told}"] if told else []
    return lines + [f"note: {count} {note}" for note, count in sorted(tally.notes.items())]


def _labelled(record: Record, row: dict[str, Any], told: dict[str, Any] | None) -> Labelled:
    mask = rle.from_json(row["segmentation"]) if row["segmentation"] else None
    reasons = row.get("reasons", ())
    if told:
        given = (*told["reasons"], *reasons)
        return Labelled(record, mask, told["quality"], told["band"], given, "review" in row)
    score = row["weight"] if "weight" in row else row["sure"]
    used = score > 0 if "weight" in row else mask is not None
    band: Band = "keep" if used else "drop"
    return Labelled(record, mask, score, band, tuple(reasons), "review" in row)


def _why(tally: Tally) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in sorted(tally.left.items()))


def _ticking(groups: Iterable[list[Labelled]], bar: tqdm) -> Iterator[list[Labelled]]:
    for group in groups:
        yield group
        bar.update(len(group))


def _about(directory: Path, asked: Asked, splits: list[str]) -> About:
    chosen = asked.selection
    words = f"bands {', '.join(chosen.bands)}; score {chosen.least:g} to {chosen.most:g}; splits "
    shares = ", ".join(f"{name} {share:g}" for name, share in chosen.splits)
    words += f"by a hash of the image's content ({shares})" if shares else "as the pairs have them"
    files = {split: _FILES[asked.format].format(split=split) for split in splits if asked.format in _FILES}
    models = tuple(_models(directory, asked.made_from))
    return About(asked.format, asked.made_from, words, asked.licence, models, files)


def _models(directory: Path, made_from: MadeFrom) -> Iterator[Model]:
    """The networks that the manifests of the run name; none of a stage that is not there."""
    for weights, (name, part) in _PARTS.items():
        try:
            manifest = Artifact.open(directory / name).manifest
        except ArtifactError:
            continue
        sha256, model = manifest.weights[weights], manifest.config[weights]["model"]
        known, licence = _known(sha256)
        yield Model(part, known or f"{weights} {model}", licence, sha256)
    if made_from == "predictions":
        made = Artifact.open(directory / made_from).manifest
        own = "segmenter trained on the labels"
        yield Model("predicts the masks", own, "yours", made.inputs["segmenter"])
        with contextlib.suppress(ArtifactError):  # it may lie elsewhere
            segmenter = Artifact.open(directory / "segmenter").manifest
            for name in sorted(segmenter.weights.keys() - _PARTS.keys()):
                known, licence = _known(segmenter.weights[name])
                yield Model("sees for the segmenter", known or name, licence, segmenter.weights[name])


def _known(sha256: str) -> tuple[str, str]:
    """(name, licence) of weights; ("", "unknown") of ones that nobody published."""
    embedded = json_object(_EMBEDDED) or {}
    for name, one in embedded.items():
        if one["sha256"] == sha256:
            return f"{name} embedded in ppt", "Apache-2.0"
    from ppt.backbones.published import by_sha256  # it brings torch

    found = by_sha256(sha256)
    return (found.checkpoint.name, found.licence) if found else ("", "unknown")


def _marker(asked: Asked, way: Way, read: Mapping[str, Artifact | None], tally: Tally) -> dict[str, Any]:
    counts = {split: {"images": tally.images[split], "masks": tally.masks[split]} for split in tally.images}
    return {
        "format": asked.format,
        "version": 1,
        "code_version": __version__,
        "inputs": {name: one.fingerprint for name, one in read.items() if one},
        "selection": asdict(asked.selection),
        "wishes": asdict(asked.wishes),
        "images": way,
        "counts": counts,
        "left_out": dict(tally.left),
        "notes": dict(tally.notes),
        "polygons": loss(tally),
    }
