"""Which pairs share a shard, and what each is called there.

What was planned once keeps its shard, whatever is added or removed later: then only the shards that a change
touches are made anew.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from ppt.records.pairs import Row


def content(image: str, contents: Mapping[str, str | None]) -> str:
    """What stands for an image's content: its sha256, or its path where it cannot be read."""
    return contents[image] or f"unreadable {image}"


def shards(
    rows: Sequence[Row],
    contents: Mapping[str, str | None],
    size: int,
    former: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, list[Row]]:
    """Shard key -> its rows in file order, `size` contents each, one content in one shard; a refused row
    joins the last one so far.

    contents: image path -> sha256 of its bytes, None where it cannot be read. former: the plan that there is,
    key -> names; a content of which a row is named there stays in that shard, others fill up the last one and
    begin new ones. Planned with its own result as the former, it is the same.
    """
    former, names_now = former or {}, names(rows)
    at = {name: key for key, known in former.items() for name in known}
    places: dict[str, str] = {}
    for row in rows:
        key = at.get(names_now[row.where])
        if row.pair is not None and key is not None:
            places.setdefault(content(row.pair.image, contents), key)
    held = Counter(places.values())
    last = max(former, key=int, default=_key(0))
    planned: dict[str, list[Row]] = {}
    for row in rows:
        if row.pair is None:
            key = at.get(names_now[row.where], last)
        else:
            what = content(row.pair.image, contents)
            if what not in places:
                last = _key(int(last) + 1) if held[last] >= size else last
                places[what] = last
                held[last] += 1
            key = places[what]
        planned.setdefault(key, []).append(row)
    return {key: planned[key] for key in sorted(planned, key=int)}


def everyone(planned: Mapping[str, Sequence[str]]) -> set[str]:
    """The names in a plan."""
    return {name for shard in planned.values() for name in shard}


def _key(number: int) -> str:
    return f"{number:05d}"


def names(rows: Sequence[Row]) -> dict[str, str]:
    """Where a row stands -> its name in the plan and among the failures: the id, or where it stands if no id
    is the row's own.
    """
    taken = {row.id for row in rows if row.pair is not None}
    return {
        row.where: row.id if row.pair is not None or (row.id and row.id not in taken) else row.where
        for row in rows
    }
