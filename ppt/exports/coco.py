"""COCO: a data set with masks as RLE or polygons, and results to be scored against one.

annotations/instances_<split>.json   {"images", "annotations", "categories", "info", "licenses"}
results/results_<split>.json         [{"image_id", "category_id", "segmentation", "bbox", "score"}]

An annotation has `score`, `expression`, `pair_id`, `band` and `reasons` besides COCO's own keys, which every
reader we know ignores. RLE stands under iscrowd 0. Images without a mask are listed, too.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ppt import rle
from ppt.config import canonical_json
from ppt.exports import polygons
from ppt.exports.items import Mask, Picture
from ppt.exports.streams import Job, Rows

CATEGORY = 1
"""The number of the one category."""


def dataset(job: Job, pictures: Iterable[Picture]) -> None:
    """annotations/instances_<split>.json"""
    write_dataset(job, pictures, lambda split: job.folder / f"annotations/instances_{split}.json")


def results(job: Job, pictures: Iterable[Picture]) -> None:
    """results/results_<split>.json, and images/images_<split>.json, a data set of the images alone, which
    `COCO.loadRes` wants beside it where there is no other.
    """
    with (
        Rows(lambda split: job.folder / f"results/results_{split}.json") as found,
        _Images(job, lambda split: job.folder / f"results/images_{split}.json") as listed,
    ):
        for picture in pictures:
            listed.add(picture.split, picture)
            found.begin(picture.split)
            for mask in picture.masks:
                row = annotation(job, picture, mask, mask.rle.to_json())
                wanted = ("image_id", "category_id", "segmentation", "bbox", "score")
                found.add(picture.split, {name: row[name] for name in wanted})
            job.tally.count(picture)


def write_dataset(
    job: Job,
    pictures: Iterable[Picture],
    path: Callable[[str], Path],
    segmentation: Callable[[Mask], Any] | None = None,
    name: Callable[[str], str] = lambda file: file,
    together: bool = False,
) -> None:
    """COCO's JSON for each split; together: one for all, the path of "". segmentation: what a mask is written
    as, by default as was wished; name: what the image at a place in the export is called.
    """
    written = segmentation or (
        lambda mask: outlined(job, mask) if job.wishes.polygons else mask.rle.to_json()
    )
    with _Images(job, path, name) as listed:
        for picture in pictures:
            key = "" if together else picture.split
            listed.add(key, picture)
            for mask in picture.masks:
                listed.rows.add(key, annotation(job, picture, mask, written(mask)))
            job.tally.count(picture)


def outlined(job: Job, mask: Mask) -> list[list[float]]:
    """A mask's polygons, as COCO has them; how near they are to the mask is noted."""
    found = polygons.parts(mask.rle)
    job.tally.polygons.append(polygons.overlap(mask.rle, found))
    return found


def annotation(job: Job, picture: Picture, mask: Mask, segmentation: Any) -> dict[str, Any]:
    """A row of `annotations`; bbox is [x, y, width, height] and tight, area the mask's pixels."""
    x0, y0, x1, y1 = rle.box(mask.rle)
    return {
        "id": job.item_number(mask.item.id),
        "image_id": job.image_number(picture),
        "category_id": CATEGORY,
        "segmentation": segmentation,
        "area": rle.area(mask.rle),
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "iscrowd": 0,
        "score": mask.item.score,
        "expression": mask.item.text,
        "pair_id": mask.item.id,
        "band": mask.item.band,
        "reasons": list(mask.item.reasons),
    }


class _Images:
    """COCO's JSON with the images of each split, which are kept as text until the file's end."""

    def __init__(
        self, job: Job, path: Callable[[str], Path], name: Callable[[str], str] = lambda file: file
    ) -> None:
        self._job, self._name = job, name
        self._images: dict[str, dict[int, str]] = defaultdict(dict)
        self.rows = Rows(path, opening='{"annotations":[', closing=self._closing)

    def __enter__(self) -> "_Images":
        self.rows.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.rows.__exit__(*error)

    def add(self, key: str, picture: Picture) -> None:
        number = self._job.image_number(picture)
        row = {
            "id": number,
            "file_name": self._name(picture.file),
            "height": picture.height,
            "width": picture.width,
            "source": picture.image,
            "sha256": picture.record.sha256,
        }
        self.rows.begin(key)
        self._images[key][number] = canonical_json(row)

    def _closing(self, key: str) -> str:
        category = {"id": CATEGORY, "name": self._job.wishes.category, "supercategory": ""}
        info = {
            "description": "Pseudo-masks drawn by models; see README.md.",
            "version": "1",
        }
        images = ",\n".join(self._images[key].values())
        return (
            f'],\n"categories":{canonical_json([category])},\n"images":[{images}],\n'
            f'"info":{canonical_json(info)},\n"licenses":[]}}\n'
        )
