"""`build_report`: a run folder -> one HTML file that holds everything and asks nothing of the network."""

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ppt.durable import ensure
from ppt.records import images
from ppt.report import figures, overview, preview
from ppt.report.cards import card
from ppt.report.gather import Item, Run, read_run, select, with_pictures

FILE_NAME = "report.html"
_NO_IMAGES = "No images folder was given, so masks and points are drawn on a blank."
_COLOURS = {
    "positive": preview.POSITIVE,
    "negative": preview.NEGATIVE,
    "ignored": preview.IGNORED,
    "mask": preview.MASK,
    "truth": preview.TRUTH,
}


def build_report(output: Path, images_root: Path | None = None, limit: int = 400) -> Path:
    """Write `output/report.html` from the artifacts in the run folder `output`, and return its path.

    images_root: the folder that image paths are relative to (that of the pairs file); without it, or where an
    image is missing or has changed, masks and points are drawn on a blank. limit: most items to show; beyond
    it the worst half and an even spread of the others. The same artifacts and images give the same bytes.

    Raises ReportError when `output` holds no finished records, ArtifactError when an artifact is damaged.
    """
    if limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    run = read_run(output)
    items = with_pictures(run, select(run.items, limit))
    photos = _photos(run, items, images_root)
    number = {sha256: index for index, sha256 in enumerate(photos)}
    cards = [
        card(
            item,
            rank,
            number[item.record.sha256],
            photos[item.record.sha256]["problem"] if images_root else None,
        )
        for rank, item in enumerate(items, start=1)
    ]
    page = _render(
        name=run.folder.name,
        lede=overview.lede(run),
        tiles=overview.tiles(run),
        metrics=overview.metrics(run),
        charts=overview.plots(run),
        learned=overview.learned(run),
        provenance=overview.provenance(run),
        stranded=overview.stranded(run),
        notices=[*run.mixtures(), *([] if images_root else [_NO_IMAGES])],
        shown=_shown(run, items),
        filters=_filters(cards),
        trusted=_trusted(run),
        has_iou=any(item.iou is not None for item in items),
        has_truth=any(item.truth is not None for item in items),
        cards=cards,
        photos=list(photos.values()),
    )
    path = output / FILE_NAME
    # A message may quote bytes that are no text; it is shown with them escaped.
    ensure(path, page.encode("utf-8", "backslashreplace"))
    return path


def _photos(run: Run, items: Sequence[Item], root: Path | None) -> dict[str, dict[str, Any]]:
    """sha256 -> the photograph as a data URI, once per image content, or what is wrong with it."""
    policy = images.ImagePolicy(**_policy(run))
    photos: dict[str, dict[str, Any]] = {}
    for item in items:
        record = item.record
        if record.sha256 in photos:
            continue
        uri, problem = None, None
        if root is not None:
            try:
                uri = figures.photo_uri(images.load(root, record.pair.image, policy, record.sha256).pixels)
            except images.ImageError as error:
                problem = str(error)
        size = {"width": record.width, "height": record.height}
        photos[record.sha256] = {"uri": uri, "problem": problem, **size}
    return photos


def _policy(run: Run) -> dict[str, Any]:
    """How the records stage read the images: the same pixels are to be shown."""
    section = run.stages["records"].manifest.config["records"]
    return {name: section[name] for name in ("max_pixels", "exif", "alpha", "follow_links")}


def _shown(run: Run, items: Sequence[Item]) -> str:
    if len(items) == len(run.items):
        return f"All {len(items):,}, lowest {_trusted(run)} first."
    worst = (len(items) + 1) // 2
    rest = len(items) - worst
    share = f"{len(items):,} of {len(run.items):,}"
    return f"{share}: the {worst:,} of lowest {_trusted(run)}, then {rest:,} spread evenly over the others."


def _trusted(run: Run) -> str:
    """What items are sorted by."""
    return "quality" if "quality" in run.stages else "weight"


def _filters(cards: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The choices by which the items can be narrowed down, where there is more than one."""
    filters: list[dict[str, Any]] = []
    for key, name in (("band", "Band"), ("status", "Status"), ("split", "Split"), ("source", "Source")):
        counts = Counter(card[key] for card in cards if card[key])
        if len(counts) > 1:
            filters.append({"key": key, "name": name, "choices": sorted(counts.items())})
    return filters


def _render(**values: Any) -> str:
    loader = PackageLoader("ppt.report")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style, script = (loader.get_source(environment, f"report.{kind}")[0] for kind in ("css", "js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    own = {"style": Markup(style), "script": Markup(script), "script_digest": digest}  # ours, not the user's
    colours = [(role, "#{:02x}{:02x}{:02x}".format(*rgb)) for role, rgb in _COLOURS.items()]
    return environment.get_template("report.html.j2").render(**values, **own, colours=colours, ramp=_ramp())


def _ramp() -> str:
    """The heat map's colours as CSS, for the legend."""
    colours = preview.heat_palette()[::51, :3].tolist()
    return ", ".join("#{:02x}{:02x}{:02x}".format(*colour) for colour in colours)
