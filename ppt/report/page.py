"""`build_report`: a run folder -> one HTML file that opens from disk and asks nothing of the network.

It holds the first items whole, and of all items a compact index to search and sort by. Where there are more,
the others lie beside it, in scripts of a few cards each and a JPEG for each photograph, and are read when
they are to be seen.
"""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ppt.config import fingerprint
from ppt.durable import ensure
from ppt.places import Place
from ppt.report import overview, preview
from ppt.report.against import beside
from ppt.report.cards import card
from ppt.report.gather import Item, Run, read_run, with_pictures
from ppt.report.index import as_markup, filters, index
from ppt.report.photos import Photos
from ppt.report.sidecars import CHUNK, Sidecars

FILE_NAME, AGAINST = "report.html", "report_against.html"
LIMIT = 400
"""Items that are in the page itself."""
PAGE = 50
"""Cards to be seen at once where some lie beside the page."""
_BATCH = 2000
"""Items whose masks and maps are in memory at a time."""
_NO_IMAGES = "No images folder was given, so masks and points are drawn on a blank."
_SCRIPTS = ("report.js", "review.js", "live.js", "start.js")
_STYLES = ("report.css", "review.css")
_COLOURS = {
    "positive": preview.POSITIVE,
    "negative": preview.NEGATIVE,
    "ignored": preview.IGNORED,
    "mask": preview.MASK,
    "truth": preview.TRUTH,
}


def build_report(
    output: Place, images_root: Place | None = None, limit: int = LIMIT, against: Place | None = None
) -> Place:
    """Write `output/report.html` from the artifacts in the run folder `output`, and return its path.

    images_root: the folder that image paths are relative to (that of the pairs file); without it, or where an
    image is missing or has changed, masks and points are drawn on a blank. limit: most items in the page
    itself, worst first; the others go to `output/report_files`, of which there is none where all are in the
    page. against: the folder of another run, whose labels of the same pairs stand beside; the page is then
    `output/report_against.html`. The same artifacts, images and times give the same bytes.

    Raises ReportError where there are no finished records, ArtifactError when an artifact is damaged.
    """
    run, table = read_run(output), None
    if against is not None:
        run, table = beside(run, against)
    path = output / (AGAINST if against else FILE_NAME)
    ensure(path, render(run, path, images_root, limit, table=table))
    return path


def files_of(path: Place) -> Place:
    """The folder of what lies beside the page at `path`."""
    return path.with_name(f"{path.stem}_files")


def render(
    run: Run,
    path: Place,
    images_root: Place | None,
    limit: int = LIMIT,
    live: dict[str, Any] | None = None,
    table: dict[str, Any] | None = None,
) -> bytes:
    """The page about `run` that is to lie at `path`, whose sidecars are written beside it.

    live: {"ask": whether SAM is there to be asked, "who": a name}, for the page that a server hands out.
    table: of this run and another, as `beside` gives it.
    """
    if limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    environment = _environment()
    photos = Photos(run, images_root)
    sidecars = Sidecars(files_of(path), environment, _edition(run, limit, table))
    inside, rest = run.items[:limit], run.items[limit:]
    cards = [*_cards(run, inside, 1, photos)]
    within = photos.as_uris()
    for start in range(0, len(rest), _BATCH):
        batch = rest[start : start + _BATCH]
        sidecars.add(_cards(run, batch, 1 + limit + start, photos), photos)
    sidecars.finish()
    facts = {
        **index(run.items),
        "reviewable": run.reviewable,
        "live": live,
        "edition": sidecars.edition,
        "files": sidecars.folder.name,
        "chunk": CHUNK,
        "page": PAGE if rest else None,
    }
    page = environment.get_template("report.html.j2").render(
        name=run.folder.name,
        against=table,
        lede=overview.lede(run),
        tiles=overview.tiles(run),
        metrics=overview.metrics(run),
        charts=overview.plots(run),
        learned=overview.learned(run),
        provenance=overview.provenance(run),
        stranded=overview.stranded(run),
        notices=[*run.mixtures(), *run.kept(), *([] if images_root else [_NO_IMAGES])],
        shown=_shown(run, len(inside), sidecars.folder.name),
        filters=filters(run.items),
        trusted=_trusted(run),
        has_iou=any(item.iou is not None for item in run.items),
        has_area=any("area" in item.scores for item in run.items),
        has_truth="truth" in run.stages and not run.mixtures(),
        has_predictions="predictions" in run.stages,
        reviewable=run.reviewable,
        live=live,
        cards=cards,
        photos=within,
        index=as_markup(facts),
        **_policy("'self'" if live else "file:", bool(rest), bool(live)),
    )
    # A message may quote bytes that are no text; it is shown with them escaped.
    return page.encode("utf-8", "backslashreplace")


def _cards(run: Run, items: Sequence[Item], first: int, photos: Photos) -> Iterator[dict[str, Any]]:
    """The cards of `items`, of which the first has that rank."""
    for rank, item in enumerate(with_pictures(run, items), start=first):
        number, problem = photos.number(item.record)
        yield card(item, rank, number, problem, run.reviewable)


def _edition(run: Run, limit: int, table: dict[str, Any] | None) -> str:
    """What a page and its sidecars know each other by."""
    made = {name: stage.fingerprint for name, stage in run.stages.items()}
    return fingerprint(made, limit, CHUNK, table)[:12]


def _shown(run: Run, inside: int, files: str) -> str:
    total = f"All {len(run.items):,}, lowest {_trusted(run)} first."
    return (
        total
        if inside == len(run.items)
        else f"{total} The first {inside:,} are in this file, {files} has the others."
    )


def _trusted(run: Run) -> str:
    """What items are sorted by."""
    return "quality" if "quality" in run.stages else "weight"


def _policy(place: str, beside: bool, asks: bool) -> dict[str, Markup]:
    """What the page may load, for its Content-Security-Policy. beside: images from `place`, and from there
    the scripts that its own script asks for. asks: whether it may talk to `place`.
    """
    policy = {"images": f" {place}", "scripts": " 'strict-dynamic'", "place": place} if beside else {}
    policy["asks"] = f"; connect-src {place}" if asks else ""
    names = ("images", "scripts", "place", "asks")
    return {name: Markup(policy.get(name, "")) for name in names}  # nosec B704  # our own words alone


def _environment() -> Environment:
    loader = PackageLoader("ppt.report")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style, script = (
        "".join(loader.get_source(environment, name)[0] for name in names) for names in (_STYLES, _SCRIPTS)
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {
        "style": Markup(style),  # nosec B704  # ours, not the user's
        "script": Markup(script),  # nosec B704
        "script_digest": digest,
        "colours": [(role, "#{:02x}{:02x}{:02x}".format(*rgb)) for role, rgb in _COLOURS.items()],
        "ramp": _ramp(),
    }
    return environment


def _ramp() -> str:
    """The heat map's colours as CSS, for the legend."""
    colours = preview.heat_palette()[::51, :3].tolist()
    return ", ".join("#{:02x}{:02x}{:02x}".format(*colour) for colour in colours)
