"""`ppt report`: its options, and the report that a run ends with."""

import webbrowser
from typing import Annotated

import typer

from pipelines.exits import tell
from ppt.config import Config
from ppt.places import Place, on_disk, place


def report(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="The folder of a run, or its URL.")],
    against: Annotated[
        str | None,
        typer.Option(metavar="OTHER", help="Side by side with another run, in report_against.html."),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """HTML that opens from disk: every item with its map, points, candidates and mask; worst first; marks."""
    folder = place(directory)
    if show:
        on_disk(folder, "ppt report --open")
    path = leave_report(folder, place(against) if against else None)
    if show:
        webbrowser.open(on_disk(path, "ppt report --open").resolve().as_uri())


def leave_report(output: Place, against: Place | None = None) -> Place:
    """Write the report of the run in `output`, say where, and return its path."""
    from pipelines.stage import images_root
    from ppt.report import build_report

    try:
        root = images_root(Config(), output)
    except FileNotFoundError:
        root = None  # a run from elsewhere, or none at all; the report says which
    path = build_report(output, root, against=against)
    tell(f"report: {path}")
    return path
