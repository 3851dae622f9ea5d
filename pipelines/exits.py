"""What a command leaves with: its exit code, and on stderr one line for people.

0 done, 1 failed, 2 wrong usage or config (nothing was done), 3 done with skipped items, 130 / 143 stopped by
SIGINT / SIGTERM (the same command resumes).
"""

import sys
from types import FrameType
from typing import NoReturn

import typer

from ppt.config import ConfigError

SKIPPED = 3


def leave(skipped: int, items: int = 1) -> None:
    """Leave with 1 where nothing came through, with `SKIPPED` where something was passed over."""
    if items == 0:
        raise typer.Exit(1)
    if skipped:
        raise typer.Exit(SKIPPED)


def stopped(number: int, _: FrameType | None) -> NoReturn:
    """A handler of signals."""
    stop("stopped; the same command resumes", 128 + number)


def stop(message: str, code: int) -> NoReturn:
    """Say why, and leave."""
    print(f"ppt: {message}", file=sys.stderr)
    sys.exit(code)


def exit_code(error: Exception) -> int:
    """2 for what the user asked wrongly, the signal's own for a stop, 1 for everything else."""
    from ppt.engine import Interrupted
    from ppt.exports.items import ExportError
    from ppt.places import PlaceError
    from ppt.records.pairs import PairsError
    from ppt.records.truth import TruthError
    from ppt.report import ReportError
    from ppt.review import ReviewError
    from ppt.store import ArtifactError

    if isinstance(error, Interrupted):
        return error.exit_code
    asked_wrongly = (ConfigError, ExportError, PairsError, PlaceError, TruthError, ReportError, ReviewError)
    if isinstance(error, (*asked_wrongly, ArtifactError, FileNotFoundError)):
        return 2
    # Last: it brings torch, and a typing error should cost no wait.
    from ppt.backbones.weights import WeightsError

    return 2 if isinstance(error, WeightsError) else 1
