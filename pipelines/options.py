"""The options that commands have in common."""

import json
from typing import Annotated

import typer

from ppt.config import ConfigError

ConfigFile = Annotated[
    str,
    typer.Argument(
        metavar="CONFIG.yaml", help="A YAML file, or the name of a shipped one; several, the last first: A+B."
    ),
]
Output = Annotated[str, typer.Option(help="Folder or URL of the run; each stage has its own folder inside.")]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one setting.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over instead of resuming.")]
Engine = Annotated[str | None, typer.Option(help="Who does the shards: local, or ray.")]
Address = Annotated[str | None, typer.Option(help="Of a Ray cluster: host:port, or auto.")]
Pairs = Annotated[str | None, typer.Option(help="JSONL or CSV: image, text, optional id, split, source.")]
Truth = Annotated[str | None, typer.Option(help="JSONL: id, segmentation. Only evaluation opens it.")]
Shards = Annotated[
    str | None,
    typer.Option(metavar="I/N", help="Only every N-th shard, from number I (from 0); others make the rest."),
]


def division(shards: str | None, engine: str | None, address: str | None) -> list[str]:
    """Settings that say who makes what: "3/16" is a share; an address is one of Ray's. Raises ConfigError."""
    given = {"engine": engine or (address and "ray"), "ray.address": address}
    settings = [f"{key}={json.dumps(value)}" for key, value in given.items() if value]
    if shards is None:
        return settings
    number, _, count = shards.partition("/")
    if not (number.isdecimal() and count.isdecimal()):
        raise ConfigError(f"--shards: expected a number from 0 and their count, as 3/16 (got {shards!r})")
    return [*settings, f"share=[{int(number)}, {int(count)}]"]
