"""The formats by name, and what each needs beside its writer."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ppt.exports import (
    cris,
    cvat,
    fiftyone,
    imagefolder,
    label_studio,
    png,
    refer,
    webdataset,
    yolo,
)
from ppt.exports.carrier import Way
from ppt.exports.coco import dataset, results
from ppt.exports.items import ExportError, Picture, Tally, Wishes
from ppt.exports.streams import Job


@dataclass(frozen=True)
class Format:
    """A writer. images: the folder in which the images lie, with {split}; "" where it takes them itself.
    needs_images: whether it is of no use without them. backgrounds: whether images without a mask belong.
    """

    write: Callable[[Job, Iterable[Picture]], None]
    images: str = "images"
    needs_images: bool = False
    backgrounds: bool = False


FORMATS = {
    "coco": Format(dataset, backgrounds=True),
    "coco-results": Format(results, backgrounds=True),
    "png": Format(png.write),
    "yolo": Format(yolo.write, "images/{split}", needs_images=True, backgrounds=True),
    "refer": Format(refer.write, refer.IMAGES, needs_images=True),
    "cris": Format(cris.write, cris.IMAGES, needs_images=True),
    "imagefolder": Format(imagefolder.write, "{split}/images", needs_images=True),
    "webdataset": Format(webdataset.write, "", needs_images=True),
    "label-studio": Format(label_studio.write),
    "cvat": Format(cvat.write, backgrounds=True),
    "fiftyone": Format(fiftyone.write, "{split}/data", needs_images=True, backgrounds=True),
}
"""By the name that `ppt export --format` takes."""


def named(name: str, wishes: Wishes, way: Way | None) -> tuple[Format, Way]:
    """The format, and how its images come along. Raises ExportError for an unknown one, or a wish that it
    cannot fulfil.
    """
    if name not in FORMATS:
        raise ExportError(f"--format: expected one of {', '.join(FORMATS)}, got {name!r}")
    format = FORMATS[name]
    if wishes.polygons and name != "coco":
        raise ExportError(f"--polygons is for coco, not {name}: yolo and refer have polygons, the rest masks")
    if wishes.url_prefix and name != "label-studio":
        raise ExportError(f"--url-prefix is for label-studio, not {name}")
    if not wishes.category.strip() or any(ord(letter) < 32 for letter in wishes.category):
        raise ExportError(f"--category must be a word, got {wishes.category!r}")
    if format.needs_images and way == "none":
        raise ExportError(f"--images none: {name} needs its images beside it; use copy, hardlink or symlink")
    if name == "webdataset" and way not in (None, "copy"):
        raise ExportError(f"--images {way}: a tar holds copies; use copy")
    return format, way or ("copy" if format.needs_images else "none")


def write(format: Format, job: Job, pictures: Iterable[Picture]) -> None:
    """Fill the job's folder. Raises ExportError, OSError."""
    if not format.backgrounds:
        pictures = _with_masks(pictures, job.tally)
    if format.images:
        pictures = job.carrier.carried(pictures, format.images, job.tally)
    format.write(job, pictures)


def _with_masks(pictures: Iterable[Picture], tally: Tally) -> Iterator[Picture]:
    for picture in pictures:
        if picture.masks:
            yield picture
        else:
            tally.notes["images are not in it: no mask of theirs was kept"] += 1
