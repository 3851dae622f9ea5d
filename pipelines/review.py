"""`ppt review serve`: the report as a page that saves decisions as they are made, and asks SAM at a click."""

import getpass
import signal
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.exits import tell
from ppt.config import Config, ConfigError, canonical_json, load_config
from ppt.places import Place, on_disk, place
from ppt.types import MaskCandidates, PointSet, Record

if TYPE_CHECKING:
    from ppt.backbones.sam import SamModel
    from ppt.records.images import ImagePolicy
    from ppt.report.gather import Run

app = typer.Typer(no_args_is_help=True, help="Decide about labels: keep, drop, another mask.")
_REMEMBERED = 8
"""Images whose embeddings are kept."""


@app.callback()
def _several() -> None:
    """Decide about labels: keep, drop, another mask."""


@app.command()
def serve(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="The folder of a run.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    who: Annotated[str | None, typer.Option(help="Your name, for the decisions.")] = None,
    overrides: Annotated[
        list[str],
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a setting, as sam.weights."),
    ] = [],  # noqa: B006 -- typer copies it
) -> None:
    """The report on a page of this machine alone: decisions go to DIR/review.jsonl as they are made."""
    from pipelines import stage
    from ppt.report.desk import Desk
    from ppt.report.gather import read_run
    from ppt.report.journal import Journal
    from ppt.report.server import Server

    directory = on_disk(place(folder), "ppt review serve")
    run = read_run(directory)
    config = _config(run, overrides)
    try:
        root = stage.images_root(config, directory)
    except FileNotFoundError:
        root = None
    with Journal(directory, run.of) as journal:
        desk = Desk(run, root, journal, _sam(run, config, root))
        try:
            server = Server(desk, desk.page(_name() if who is None else who), port)
        except OSError as error:
            raise ConfigError(f"--port: {port} cannot be had ({error.strerror})") from None
        with server:
            for number in (signal.SIGINT, signal.SIGTERM):  # the way to end, so that it is no failure
                signal.signal(number, signal.default_int_handler)
            tell(f"review: {server.url}\nDecisions go to {journal.path}; end with Ctrl-C.")
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                tell(f"review: {len(journal.last)} items decided on in {journal.path}")


class Asking:
    """SAM and the images of a run; the last few images stay embedded."""

    def __init__(self, sam: "SamModel", policy: "ImagePolicy", root: Place) -> None:
        self._sam, self._policy, self._root = sam, policy, root
        self._embedded: dict[str, object] = {}

    def __call__(self, record: Record, points: PointSet) -> MaskCandidates:
        """SAM's candidates. Raises ImageError for an image that is gone or has changed."""
        from ppt.records import images

        embedding = self._embedded.pop(record.sha256, None)
        if embedding is None:
            read = images.load(self._root, record.pair.image, self._policy, record.sha256)
            embedding = self._sam.embed(read.pixels)
        self._embedded[record.sha256] = embedding  # the last is the newest
        if len(self._embedded) > _REMEMBERED:
            del self._embedded[next(iter(self._embedded))]
        [found] = self._sam.predict(embedding, [points])  # pyright: ignore[reportArgumentType]
        return found


def _config(run: "Run", overrides: list[str]) -> Config:
    """The run's SAM; a weights file has no place in an artifact, so that one is named with sam.weights."""
    masks = run.stages.get("masks")
    known = masks.manifest.config.get("sam") if masks else None
    return load_config(None, [*([f"sam={canonical_json(known)}"] if known else []), *overrides])


def _sam(run: "Run", config: Config, root: Place | None) -> Asking | None:
    """The run's own SAM; None, told in a line, where it or the images are not here."""
    from pipelines.doors import open_sam_door
    from ppt.backbones.weights import WeightsError
    from ppt.records.images import ImagePolicy

    if root is None:
        tell("Points cannot be tried: it is not known where the images lie.", err=True)
        return None
    try:
        sam = open_sam_door(config)
    except WeightsError as error:
        tell(f"Points cannot be tried: {error}", err=True)
        return None
    known = run.stages["masks"].manifest.weights.get("sam") if "masks" in run.stages else None
    if known not in (None, sam.weights_sha256):
        tell("Points cannot be tried: the run had another SAM; name that one in sam.weights", err=True)
        return None
    return Asking(sam, ImagePolicy.of(run.stages["records"].manifest.config["records"]), root)


def _name() -> str:
    """Who is logged in."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""
