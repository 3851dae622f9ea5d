"""YOLO's segmentation: images/<split>, labels/<split>/<image's name>.txt, and data.yaml.

A line is `0 x1 y1 x2 y2 ...`, one polygon, in shares of the image's width and height: parts of a mask are
joined, and holes opened, by cuts that enclose nothing. The file of an image without a mask is empty. A line
says nothing of the sentence or the score, so of equal masks in an image one is written. Polygons run along
the pixels' edges: OpenCV's fillPoly, and what is built on it, fills a row and a column more of small images.
"""

from collections.abc import Iterable

import yaml

from ppt.exports import polygons
from ppt.exports.items import Picture
from ppt.exports.streams import Job
from ppt.rle import Rle

DIGITS = 6
_JUDGED = ("val", "validation", "valid", "dev")


def write(job: Job, pictures: Iterable[Picture]) -> None:
    """labels/*/*.txt and data.yaml"""
    splits: dict[str, None] = {}
    for picture in pictures:
        splits[picture.split] = None
        path = (job.folder / picture.file.replace("images/", "labels/", 1)).with_suffix(".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        distinct = dict.fromkeys(mask.rle for mask in picture.masks)
        rows = [line(mask) for mask in distinct]
        job.tally.polygons += [
            polygons.overlap(mask, [polygon_of(row, mask.height, mask.width)])
            for mask, row in zip(distinct, rows, strict=True)
        ]
        path.write_text("".join(f"{row}\n" for row in rows), encoding="ascii")
        if len(distinct) < len(picture.masks):
            repeated = len(picture.masks) - len(distinct)
            job.tally.notes["sentences share a mask with another of their image, which has one line"] += (
                repeated
            )
        if not picture.masks:
            job.tally.notes["images have an empty label file: no mask of theirs was kept"] += 1
        job.tally.count(picture)
    (job.folder / "data.yaml").write_text(_described(job, list(splits)), encoding="utf-8")


def line(mask: Rle) -> str:
    """The line of a mask; of class 0, the only one."""
    numbers = polygons.single(mask)
    sides = (mask.width, mask.height)
    return " ".join(("0", *(f"{value / sides[at % 2]:.{DIGITS}g}" for at, value in enumerate(numbers))))


def polygon_of(line: str, height: int, width: int) -> list[float]:
    """The polygon of a line in original pixels, as a reader has it."""
    numbers = [float(word) for word in line.split()[1:]]
    return [value * (height if at % 2 else width) for at, value in enumerate(numbers)]


def _described(job: Job, splits: list[str]) -> str:
    judged = next((name for name in _JUDGED if name in splits), None)
    content: dict[str, object] = {"names": {0: job.wishes.category}}
    content |= {split: f"images/{split}" for split in splits if split != judged}
    if judged:
        content["val"] = f"images/{judged}"
    for name in ("train", "val"):
        if name not in content:
            job.tally.notes[f"split named {name}, which YOLO's trainers ask for, is not there (--split)"] += 1
    return yaml.safe_dump(content, allow_unicode=True)
