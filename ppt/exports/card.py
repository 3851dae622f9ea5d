"""The card of an export, README.md with the YAML head that Hugging Face's hub reads: what made the masks,
under which licences, how many there are, and what they are not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median

import yaml

from ppt.exports.items import Tally

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LARGEST = "1M<n<10M"
FINE = 0.98
"""IoU below which a polygon is said to have lost something."""


@dataclass(frozen=True)
class Model:
    """A network that had a part in the masks, and which."""

    part: str
    name: str
    licence: str
    sha256: str


@dataclass(frozen=True)
class About:
    """What the card says besides the counts. made_from: "labels" or "predictions"; chosen: the selection in
    words; files: split -> its files, for `datasets`, where the format is one that it loads.
    """

    format: str
    made_from: str
    chosen: str
    licence: str
    models: tuple[Model, ...]
    files: dict[str, str]


def card(about: About, tally: Tally) -> str:
    """README.md, whole."""
    head: dict[str, object] = {
        "license": about.licence,
        "annotations_creators": ["machine-generated"],
        "task_categories": ["image-segmentation"],
        "tags": ["machine-generated", "pseudo-labels", "referring-expression-segmentation", "ppt"],
        "size_categories": [_size(tally.masks.total())],
    }
    if about.files:
        files = [{"split": split, "path": path} for split, path in about.files.items()]
        head["configs"] = [{"config_name": "default", "data_files": files}]
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n",
        "# Pseudo-masks from image-text pairs\n",
        f"{tally.masks.total()} masks in {tally.images.total()} images, in the format {about.format}.\n",
        f"**{_by_whom(tally)}** They are the {about.made_from} of a run of ppt: {_MADE[about.made_from]}\n",
        "## Models\n",
        *_models(about.models),
        "## Counts\n",
        *_counts(tally),
        f"Chosen: {about.chosen}.\n",
        *_left(tally),
        "## Scores\n",
        *_scores(tally),
        *_polygons(tally),
        "## Limits\n",
        *(f"- {limit}" for limit in _LIMITS),
        "",
    ]
    return "\n".join(parts)


def _by_whom(tally: Tally) -> str:
    if not tally.reviewed:
        return "Every mask was drawn by models; no person drew or checked one."
    return f"Masks were drawn by models; a person looked at {tally.reviewed} of them, and nobody at the rest."


_MADE = {
    "labels": (
        "CLIP says where a sentence is, SAM draws, and the mask that agrees with CLIP is kept. A score says"
        " how far the models agree with each other."
    ),
    "predictions": (
        "the masks of a segmenter that was trained on such labels alone. A score says how sure it is."
    ),
}
_LIMITS = (
    "A score lies in [0, 1], and is no probability of being right.",
    "Errors are not independent: what CLIP takes for the thing meant, in one image, it does in others.",
    "An image without a mask is one of which no mask was kept. It may well show something.",
    "Things that no sentence names have no mask.",
    "The images, and the sentences, are under licences of their own, which are not known here.",
)


_OTHER_FILLINGS = (
    "OpenCV's fillPoly, and what is built on it, takes the pixels along the right and the lower edge as well."
)


def loss(tally: Tally) -> str | None:
    """How near the polygons are to the masks, in one line; None where there are none."""
    if not tally.polygons:
        return None
    found = tally.polygons
    below = sum(iou < FINE for iou in found) / len(found)
    return (
        f"{len(found)} masks drawn again from their polygons: IoU mean {mean(found):.4f}, median"
        f" {median(found):.4f}, worst {min(found):.4f}; {below:.1%} below {FINE}"
    )


def _size(masks: int) -> str:
    return next((name for most, name in _SIZES if masks < most), _LARGEST)


def _models(models: Sequence[Model]) -> list[str]:
    if not models:
        return ["The run's folder does not say which.\n"]
    rows = [f"| {m.part} | {_cell(m.name)} | {_cell(m.licence)} | {m.sha256[:16]} |" for m in models]
    return ["| part | model | licence | sha256 |", "| --- | --- | --- | --- |", *rows, ""]


def _counts(tally: Tally) -> list[str]:
    splits = sorted(tally.images)
    bands = sorted({band for _, band in tally.bands})
    head = ["split", "images", "masks", *bands]
    rows = [
        [split, tally.images[split], tally.masks[split], *(tally.bands[split, band] for band in bands)]
        for split in splits
    ]
    return [*(f"| {' | '.join(map(str, row))} |" for row in (head, ["---"] * len(head), *rows)), ""]


def _left(tally: Tally) -> list[str]:
    left = [f"- {count} left out: {reason}" for reason, count in sorted(tally.left.items())]
    notes = [f"- {count} {note}" for note, count in sorted(tally.notes.items())]
    return [*map(_cell, left), *map(_cell, notes), ""] if left or notes else []


def _scores(tally: Tally) -> list[str]:
    most = max(tally.scores.values(), default=1)
    rows = [
        f"| {tenth / 10:.1f}-{tenth / 10 + 0.1:.1f} | {tally.scores[tenth]} |"
        f" {'#' * round(20 * tally.scores[tenth] / most)} |"
        for tenth in range(10)
    ]
    return ["| score | masks | |", "| --- | --- | --- |", *rows, ""]


def _polygons(tally: Tally) -> list[str]:
    told = loss(tally)
    return ["## Polygons\n", f"{told}, as pycocotools fills them. {_OTHER_FILLINGS}\n"] if told else []


def _cell(text: str) -> str:
    """Text that stays within its line and its cell."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
