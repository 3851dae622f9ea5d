"""`ppt weights`: which checkpoints are known by name, which are here, and getting one. Nothing else in `ppt`
asks the network.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from tqdm import tqdm

from pipelines.exits import tell

if TYPE_CHECKING:
    from ppt.backbones.published import Published

app = typer.Typer(no_args_is_help=True, help="Checkpoints by name: list, fetch, verify, path.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="As `ppt weights list` has it.")]


@app.command(name="list")
def list_all() -> None:
    """Every checkpoint known by name: size, licence, architecture, preprocessing, sha256, source, place."""
    from ppt.backbones.published import PUBLISHED

    for name, one in PUBLISHED.items():
        for line in _described(name, one):
            tell(line)


@app.command()
def fetch(name: Name) -> None:
    """Download a checkpoint into PPT_WEIGHTS, or into the user's cache; one that broke off goes on."""
    from ppt.backbones.fetch import fetch
    from ppt.backbones.published import named
    from ppt.backbones.weights import destination

    checkpoint = named(name).checkpoint
    with tqdm(desc=checkpoint.file, unit="B", unit_scale=True, disable=None, leave=False) as bar:
        path, sha256 = fetch(checkpoint, destination(), _drawn(bar))
    tell(f"{checkpoint.name}: {path}, sha256 {sha256}")


@app.command()
def verify(
    what: Annotated[
        str | None, typer.Argument(metavar="[NAME|FILE]", help="Nothing: all that are here.")
    ] = None,
) -> None:
    """Compare files with the published sha256."""
    results = [_verified_file(Path(what))] if what and Path(what).is_file() else list(_verified(what))
    for well, line in results:
        tell(f"{'ok  ' if well else 'WRONG'} {line}")
    if not all(well for well, _ in results):
        raise typer.Exit(1)


@app.command()
def path(name: Name) -> None:
    """Where a checkpoint lies on this machine, verified."""
    from ppt.backbones.published import named
    from ppt.backbones.weights import resolve

    tell(str(resolve(named(name).checkpoint)[0]))


def _described(name: str, one: "Published") -> Iterator[str]:
    from ppt.backbones.weights import locate

    checkpoint = one.checkpoint
    size = f"{checkpoint.size / 1e6:.0f} MB" if checkpoint.size else "size unknown"
    yield f"{name}  {size}, {one.licence}, {locate(checkpoint) or 'not here'}"
    mean, deviation = (" ".join(f"{value:.4g}" for value in row) for row in (one.mean, one.deviation))
    yield f"    {one.architecture}, {one.side} pixels, colours less {mean}, over {deviation}"
    yield f"    sha256 {checkpoint.sha256 or 'not published'}, {checkpoint.url}"


def _drawn(bar: tqdm) -> Callable[[int, int | None], None]:
    def told(there: int, whole: int | None) -> None:
        bar.total = whole
        bar.update(there - bar.n)

    return told


def _verified(name: str | None) -> Iterator[tuple[bool, str]]:
    """(well or not, a line) of the checkpoint, or of all that are here. Raises WeightsError for one that is
    asked for and is not here.
    """
    from ppt.backbones.published import PUBLISHED, named
    from ppt.backbones.weights import WeightsError, locate, resolve

    for one in [named(name)] if name else PUBLISHED.values():
        checkpoint = one.checkpoint
        if name is None and locate(checkpoint) is None:
            continue
        try:
            path, sha256 = resolve(checkpoint)
        except WeightsError as error:
            if locate(checkpoint) is None:
                raise
            yield False, str(error)
        else:
            known = "" if sha256 == checkpoint.sha256 else "; none is published to compare with"
            yield True, f"{checkpoint.name}: {path}, sha256 {sha256}{known}"


def _verified_file(path: Path) -> tuple[bool, str]:
    from ppt.backbones.published import PUBLISHED, by_sha256
    from ppt.backbones.weights import WeightsError, file_sha256
    from ppt.backbones.weights import verify as compare

    sha256 = file_sha256(path)
    known = by_sha256(sha256)
    if known:
        return True, f"{path} is {known.checkpoint.name}, sha256 {sha256}"
    for one in PUBLISHED.values():
        if one.checkpoint.claimed_by(path):
            try:
                compare(path, one.checkpoint)
            except WeightsError as error:
                return False, str(error)
    return False, f"{path}: sha256 {sha256} is not that of any checkpoint known by name"
