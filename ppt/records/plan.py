"""Which pairs share a shard, and what each is called there."""

from collections.abc import Mapping, Sequence

from ppt.records.pairs import Row


def content(image: str, contents: Mapping[str, str | None]) -> str:
    """What stands for an image's content: its sha256, or its path where it cannot be read."""
    return contents[image] or f"unreadable {image}"


def shards(rows: Sequence[Row], contents: Mapping[str, str | None], size: int) -> dict[str, list[Row]]:
    """Shard key -> its rows in file order, `size` contents each; a refused row joins the rows before it.

    contents: image path -> sha256 of its bytes, None where it cannot be read.
    """
    places: dict[str, int] = {}
    planned: dict[str, list[Row]] = {}
    for row in rows:
        if row.pair is not None:
            place = places.setdefault(content(row.pair.image, contents), len(places))
        else:
            place = max(0, len(places) - 1)
        planned.setdefault(f"{place // size:05d}", []).append(row)
    return planned


def names(rows: Sequence[Row]) -> dict[str, str]:
    """Where a row stands -> its name in the plan and among the failures: the id, or where it stands if no id
    is the row's own.
    """
    taken = {row.id for row in rows if row.pair is not None}
    return {
        row.where: row.id if row.pair is not None or (row.id and row.id not in taken) else row.where
        for row in rows
    }
