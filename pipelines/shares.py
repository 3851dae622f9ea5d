"""`--shards 3/16`: a stage's command that makes a share of its shards, while others make theirs."""

from typing import Annotated

import typer

from ppt.config import ConfigError

Shards = Annotated[
    str | None,
    typer.Option(metavar="I/N", help="Only every N-th shard, from number I (from 0); others make the rest."),
]


def setting(shards: str | None) -> list[str]:
    """The setting that "3/16" stands for. Raises ConfigError."""
    if shards is None:
        return []
    number, _, count = shards.partition("/")
    if not (number.isdecimal() and count.isdecimal()):
        raise ConfigError(f"--shards: expected a number from 0 and their count, as 3/16 (got {shards!r})")
    return [f"share=[{int(number)}, {int(count)}]"]
