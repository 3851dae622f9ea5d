"""Which item a process was on when it died, and what is passed over because of it.

    attempts/00000.jsonl    {"run", "at": ids}          before each item of the shard
                            {"run", "at": []}           where the shard's function ended, or raised
                            {"run", "at", "seen": true} of one that died, by the next, where that was seen

`run` is one call of the shard's function. One whose last line names ids was ended from outside while it was
on them: killed, out of memory, crashed in native code, or by the watch that `Shard.seconds` sets, which then
leaves a line that begins with "Timeout". What two runs ended on is passed over by the next, if the process
that gave the shard out saw them die: had it been killed as well, the item would not be to blame. Where there
was no such process, a shard with an item that three runs ended on is `suspected`, and to be given to a
worker. An item is what a stage does at once: an image with all its sentences, and so all of these are lost
with it.

The lines are appended without a flush to the disk: they outlive the process, which is what they are for, and
cost some microseconds. Of an artifact in a store they lie in this machine's folder for temporary files. The
folder goes when the artifact is complete; `--fresh` gives every item a new chance.
"""

import faulthandler
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from ppt.durable import json_lines
from ppt.places import Place, Remote
from ppt.shard import Failure, Shard

T = TypeVar("T")

FOLDER = "attempts"
DEATHS = 2
"""Runs that are seen to end on an item before it is passed over."""
UNSEEN = 3
"""Runs that end on an item before somebody is to watch."""
KILLED, TIMED_OUT = "killed_worker", "timed_out"
MESSAGES = {
    KILLED: f"the process that worked on it died, {DEATHS} times",
    TIMED_OUT: f"it took longer than item_seconds, {DEATHS} times",
}


def attempted(
    shard: Shard,
    stage: str,
    items: Iterable[T],
    ids: Callable[[T], Sequence[str]],
    failures: list[Failure],
) -> Iterator[T]:
    """The items of a shard, each noted before it is given; those that were seen to kill two runs go to
    `failures`.

    ids: of an item, as failures name them. While an item is worked on, the process ends after
    `shard.seconds` where these are not 0.
    """
    journal = _journal(shard)
    journal.parent.mkdir(exist_ok=True)
    handle = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    if shard.seen:
        _testify(journal, handle)
    deaths, run = _deaths(journal), secrets.token_hex(4)
    try:
        for item in items:
            names = list(ids(item))
            fatal = [death.error for death in deaths if death.seen and set(death.on) & set(names)]
            if len(fatal) >= DEATHS:
                failures += [Failure(stage, name, fatal[-1], MESSAGES[fatal[-1]]) for name in names]
                continue
            _note(handle, run, names)
            if shard.seconds:
                # A thread of C's own: it ends the process even where no other thread of Python can run.
                faulthandler.dump_traceback_later(shard.seconds, file=handle, exit=True)
            yield item
    finally:
        if shard.seconds:
            faulthandler.cancel_dump_traceback_later()
        _note(handle, run, [])
        os.close(handle)


def deaths(shard: Shard) -> int:
    """How many runs of the shard's function ended on an item so far; those that were seen, where the notes
    may lie on another machine.
    """
    noted = len(_deaths(_journal(shard)))
    return max(noted, shard.seen) if isinstance(shard.folder, Remote) else noted


def suspected(shard: Shard) -> bool:
    """Whether some runs ended on one item of the shard, though nobody may have seen that."""
    counts = Counter(name for death in _deaths(_journal(shard)) for name in death.on)
    return any(count >= UNSEEN for count in counts.values())


def seen(shard: Shard) -> Shard:
    """The shard as it is given out again by a process that saw another die on it."""
    return replace(shard, seen=shard.seen + 1)


def excuse(shard: Shard) -> None:
    """The last run was ended on purpose: its item is not to blame."""
    journal = _journal(shard)
    runs = _runs(journal)
    if runs:
        with open(journal, "ab", buffering=0) as file:
            _note(file.fileno(), list(runs)[-1], [])


def forget(folder: Place) -> None:
    """Remove what is known of the attempts at an artifact's shards."""
    shutil.rmtree(_folder(folder), ignore_errors=True)


def _folder(artifact: Place) -> Path:
    if isinstance(artifact, Path):
        return artifact / FOLDER
    known = hashlib.sha256(f"{os.path.expanduser('~')} {artifact}".encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"ppt_{FOLDER}_{known}"


def _journal(shard: Shard) -> Path:
    return _folder(shard.folder) / f"{shard.key}.jsonl"


def _note(handle: int, run: str, ids: list[str], **more: bool) -> None:
    os.write(handle, json_lines([{"run": run, "at": ids, **more}]))


def _testify(journal: Path, handle: int) -> None:
    """The death of the last run, if it was one, has been seen."""
    runs = _runs(journal)
    if runs:
        run, last = list(runs.items())[-1]
        if last.on and not last.seen:
            _note(handle, run, last.on, seen=True)


@dataclass(frozen=True)
class _Last:
    """The ids that a run was last on, and what is said if that was its end."""

    on: list[str]
    error: str
    seen: bool


def _deaths(journal: Path) -> list[_Last]:
    """The runs that ended on an item."""
    return [last for last in _runs(journal).values() if last.on]


def _runs(journal: Path) -> dict[str, _Last]:
    """run -> where it was last; in order of beginning."""
    found: dict[str, _Last] = {}
    last = ""
    text = journal.read_text(encoding="utf-8", errors="replace") if journal.exists() else ""
    for line in text.split("\n"):
        if line.startswith("Timeout") and last:
            found[last] = _Last(found[last].on, TIMED_OUT, seen=True)
        row = _row(line)
        if row is not None:
            last = row["run"]
            found[last] = _Last(row["at"], KILLED, row.get("seen", False))
    return found


def _row(line: str) -> dict[str, Any] | None:
    """None for a line that is cut off, and for what the watch leaves."""
    try:
        return json.loads(line) if line.startswith("{") else None
    except ValueError:
        return None
