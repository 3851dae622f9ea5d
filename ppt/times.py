"""DIR/times.jsonl: how long the stages of a run took. No artifact depends on it; the report tells it."""

from ppt.durable import json_lines, parsed_lines, write_atomic
from ppt.places import Place

FILE_NAME = "times.jsonl"


def note(output: Place, stage: str, seconds: float, afresh: bool) -> None:
    """Add what a stage took, in seconds. afresh: nothing was kept from before."""
    path = output / FILE_NAME
    row = {"stage": stage, "seconds": round(seconds, 2), "afresh": afresh}
    write_atomic(path, (path.read_bytes() if path.exists() else b"") + json_lines([row]))


def told(output: Place) -> dict[str, float]:
    """Stage -> seconds that what lies there took, in the order of the stages' first ends. A part that was
    killed is not counted; a stage that went on after it is, from where it went on. Nothing is told of a file
    that is absent or damaged.
    """
    path, found = output / FILE_NAME, dict[str, float]()
    try:
        for row in parsed_lines(path.read_bytes()):
            before = 0.0 if row["afresh"] else found.get(row["stage"], 0.0)
            found[row["stage"]] = before + float(row["seconds"])
    except (OSError, ValueError, TypeError, KeyError):
        return {}
    return found


def spoken(seconds: float) -> str:
    """ "0.4 s", "31 s", "2 min 5 s", "3 h 20 min", "5 days 7 h"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} days {hours % 24} h"
