"""What a command leaves with: its exit code, and on stderr one line for people.

0 done, 1 failed, 2 wrong usage or config (nothing was done), 3 done with skipped items, 130 / 143 stopped by
SIGINT / SIGTERM (the same command resumes).
"""

import io
import os
import re
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import typer

from ppt.config import ConfigError

SKIPPED = 3
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
"""What a terminal obeys in place of showing it: controls but for tab and line end, and turns of direction."""
TORCHRUN = "TORCHELASTIC_RUN_ID"
"""A variable of the environment, in processes that torchrun started."""


def stand_ready() -> None:
    """Standard streams that are closed lead nowhere, so that no file gets their numbers; what the terminal's
    encoding lacks is written as its number.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            mode = "w" if number else "r"
            setattr(sys, name, open(number, mode, closefd=False, encoding="utf-8"))  # noqa: SIM115
        stream = getattr(sys, name)
        if number and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def speaks() -> bool:
    """Whether this process is alone, or the first of those that torchrun started: what came of it all is said
    once.
    """
    return TORCHRUN not in os.environ or os.environ["RANK"] == "0"


def tell(line: str, err: bool = False) -> None:
    """A line for people, once however many processes there are; an error (`err`) is each one's own. Names and
    sentences in it may hold anything.
    """
    if err or speaks():
        typer.echo(shown(line), err=err)


def listed(names: Sequence[str], most: int) -> str:
    """The first of them, and that there are more."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def shown(text: str) -> str:
    """Text as a terminal may have it: what would be obeyed is written as its number."""
    return _COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def leave(skipped: int, items: int = 1) -> None:
    """Leave with 1 where nothing came through, with `SKIPPED` where something was passed over."""
    if items == 0:
        raise typer.Exit(1)
    if skipped and TORCHRUN not in os.environ:  # to which any code but 0 is a failure, to be tried again
        raise typer.Exit(SKIPPED)


def stopped(number: int, _: FrameType | None) -> NoReturn:
    """A handler of signals."""
    stop("stopped; the same command resumes", 128 + number)


def stop(message: str, code: int) -> NoReturn:
    """Say why, and leave."""
    tell(f"ppt: {message}", err=True)
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
    from ppt.store import ArtifactError, DamagedArtifact

    if isinstance(error, Interrupted):
        return error.exit_code
    if isinstance(error, DamagedArtifact):
        return 1
    asked_wrongly = (ConfigError, ExportError, PairsError, PlaceError, TruthError, ReportError, ReviewError)
    if isinstance(error, (*asked_wrongly, ArtifactError, FileNotFoundError)):
        return 2
    # Last: it brings torch, and a typing error should cost no wait.
    from ppt.backbones.weights import WeightsError

    return 2 if isinstance(error, WeightsError) else 1
