"""`ppt report`: its options, and the report that a run ends with."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from pipelines.exits import tell
from ppt.config import Config


def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run.")],
    against: Annotated[
        Path | None,
        typer.Option(metavar="OTHER", help="Side by side with another run, in report_against.html."),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """HTML that opens from disk: every item with its map, points, candidates and mask; worst first; marks."""
    path = leave_report(directory, against)
    if show:
        webbrowser.open(path.resolve().as_uri())


def leave_report(output: Path, against: Path | None = None) -> Path:
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
