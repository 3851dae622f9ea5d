"""The compact index of a run's items: what the page must know to search, sort and filter all of them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import Markup

from ppt.config import canonical_json
from ppt.metrics import groups as metric_groups
from ppt.report import words
from ppt.report.cards import status
from ppt.report.gather import Item

COLUMNS = (
    "id", "of", "words", "split", "source", "kind", "place", "status", "band", "outcome", "worth", "weight",
    "iou", "surprise", "area", "pixels", "told", "kinds", "nearness",
)  # fmt: skip
"""What a row holds; `told` and `kinds` are numbers of strings, which many items share."""
_CHOICES = {
    "band": "Band",
    "status": "Status",
    "outcome": "Found",
    "split": "Split",
    "source": "Source",
    "kind": "Kind",
    "place": "Words of place",
}
_MOST_KINDS = 30


def index(items: Sequence[Item]) -> dict[str, Any]:
    """{"columns", "strings", "items"}: a row an item, in order; what is not known is null."""
    numbers: dict[str, int] = {}
    rows = [_row(item, numbers) for item in items]
    return {"columns": COLUMNS, "strings": list(numbers), "items": rows}


def as_markup(value: dict[str, Any]) -> Markup:
    """JSON for the inside of a script element: nothing in it can end the element or begin a comment."""
    return Markup(canonical_json(value).replace("<", "\\u003c"))  # nosec B704  # no tag can begin


def filters(items: Sequence[Item]) -> list[dict[str, Any]]:
    """The choices by which the items can be narrowed down, where there is more than one."""
    found: list[dict[str, Any]] = []
    for key, name in _CHOICES.items():
        counts = Counter(_choice(item, key) for item in items)
        del counts[""]
        if len(counts) > 1:
            found.append({"key": key, "name": name, "choices": sorted(counts.items())})
    kinds = Counter(kind for item in items for kind in _kinds(item))
    if len(kinds) > 1:
        common = sorted(kinds.items(), key=lambda row: (-row[1], row[0]))[:_MOST_KINDS]
        found.append({"key": "kinds", "name": "Reason", "choices": common})
    return found


def _row(item: Item, numbers: dict[str, int]) -> list[Any]:
    record, pair, worth = item.record, item.record.pair, item.worth
    told = [*words.sentences((*item.doubts, *item.reasons)), *item.failures, *map(words.plain, record.flags)]
    return [
        pair.id,
        item.of,
        [pair.text, pair.id, pair.image],
        *(_choice(item, key) for key in ("split", "source", "kind", "place", "status", "band", "outcome")),
        -1 if worth is None else _short(worth),
        -1 if item.weight is None else _short(item.weight),
        None if item.iou is None else _short(item.iou),
        None if item.iou is None or worth is None else _short(worth - item.iou),
        _short(item.scores["area"]) if "area" in item.scores else None,
        record.height * record.width,
        _numbered(told, numbers),
        _numbered(_kinds(item), numbers),
        _short(item.other.nearness) if item.other and item.other.nearness is not None else None,
    ]


def _choice(item: Item, key: str) -> str:
    pair = item.record.pair
    match key:
        case "status":
            return status(item)
        case "band" | "outcome":
            return getattr(item, key)
        case "place":
            return metric_groups.position(pair.text)
        case _:
            return getattr(pair, key)


def _kinds(item: Item) -> list[str]:
    """What the item's reasons are about, each once."""
    return list(dict.fromkeys(words.kind(reason) for reason in (*item.doubts, *item.reasons)))


def _numbered(strings: Iterable[str], numbers: dict[str, int]) -> list[int]:
    return [numbers.setdefault(one, len(numbers)) for one in strings]


def _short(value: float) -> float:
    return round(value, 6)
