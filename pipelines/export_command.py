"""`ppt export`: its options; `pipelines.export` does it."""

from typing import Annotated, TypeVar, get_args

import typer

from pipelines.exits import leave, tell
from ppt.config import ConfigError
from ppt.places import on_disk, place

T = TypeVar("T")


def export(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="The folder of a run.")],
    format: Annotated[
        str,
        typer.Option(
            help="coco, coco-results, png, yolo, refer, cris, imagefolder, webdataset, label-studio, cvat or"
            " fiftyone."
        ),
    ],
    to: Annotated[str, typer.Option(help="A new folder, or that of an earlier export, which it replaces.")],
    labels: Annotated[str, typer.Option(help="labels, or predictions: the segmenter's masks.")] = "labels",
    bands: Annotated[str, typer.Option(help="Which of keep, review and drop.")] = "keep,review",
    least: Annotated[float, typer.Option(help="Only masks of at least this score.")] = 0.0,
    most: Annotated[float, typer.Option(help="Only masks of at most this score.")] = 1.0,
    split: Annotated[
        list[str],
        typer.Option(metavar="NAME=SHARE", help="Part images by content; once for each split, 1 together."),
    ] = [],  # noqa: B006 -- typer copies it
    images: Annotated[
        str | None,
        typer.Option(
            metavar="copy|hardlink|symlink|none",
            help="How images come along; by default copied where the format needs them.",
        ),
    ] = None,
    category: Annotated[str, typer.Option(help="What every mask is called.")] = "object",
    polygons: Annotated[bool, typer.Option("--polygons", help="coco: polygons in place of RLE.")] = False,
    url_prefix: Annotated[
        str, typer.Option(help="label-studio: before image paths, e.g. /data/local-files/?d=")
    ] = "",
    licence: Annotated[str, typer.Option(help="For the card: the licence of the whole, SPDX.")] = "unknown",
) -> None:
    """The labels in another tool's format, with a card: COCO, YOLO, REFER, Hugging Face, CVAT and more."""
    from pipelines import export
    from ppt.exports.carrier import Way
    from ppt.quality import BANDS

    asked = export.Asked(
        format,
        _one_of("--labels", labels, get_args(export.MadeFrom)),
        export.Selection(
            tuple(_one_of("--bands", band.strip(), BANDS) for band in bands.split(",")),
            least,
            most,
            tuple(_share(one) for one in split),
        ),
        export.Wishes(category, polygons, url_prefix),
        None if images is None else _one_of("--images", images, get_args(Way)),
        licence,
    )
    folder, target = on_disk(place(directory), "ppt export DIR"), on_disk(place(to), "--to")
    tally = export.run(folder, target, asked)
    for line in export.summary(asked, target, tally):
        tell(line)
    leave(tally.faults)


def _one_of(option: str, given: str, known: tuple[T, ...]) -> T:
    for one in known:
        if one == given:
            return one
    raise ConfigError(f"{option}: expected one of {', '.join(map(str, known))}, got {given!r}")


def _share(given: str) -> tuple[str, float]:
    name, _, share = given.partition("=")
    try:
        return name.strip(), float(share)
    except ValueError:
        raise ConfigError(f"--split: expected NAME=SHARE, as train=0.9, got {given!r}") from None
