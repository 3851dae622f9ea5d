"""review.jsonl: decisions in the order in which they were made, one a line, never changed once written."""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ppt.config import canonical_json
from ppt.durable import write_atomic
from ppt.report.gather import ReportError
from ppt.review import FILE_NAME


class Journal:
    """The one writer of `folder`/review.jsonl. Use it in a `with` block.

    of: id -> what a decision on it is about; lines about something else stay in the file and are not `last`.
    last: id -> its last decision.
    """

    def __init__(self, folder: Path, of: Mapping[str, str]) -> None:
        self.path = folder / FILE_NAME
        self.of = of
        self.last: dict[str, dict[str, Any]] = {}
        self._lock = FileLock(folder / f".{FILE_NAME}.lock")
        self._open = False

    def __enter__(self) -> "Journal":
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ReportError(
                f"{self.path}: another `ppt review serve` is writing to it; end that one"
            ) from None
        try:
            self._read()
        except BaseException:
            self._lock.release()
            raise
        self._open = True
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        self._lock.release()

    def append(self, row: dict[str, Any]) -> None:
        """Add a decision; it is on the disk when this returns. Raises OSError, also after the block."""
        if not self._open:
            raise OSError(f"{self.path}: the review has ended")
        # Opened each time: the file may have been replaced by another since.
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            line, size = (canonical_json(row) + "\n").encode(), os.fstat(handle).st_size
            try:
                if os.write(handle, line) < len(line):
                    raise OSError(f"{self.path}: no room for another decision")
                os.fsync(handle)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(handle, size)  # half a line would be no line
                raise
        finally:
            os.close(handle)
        self.last[row["id"]] = row

    def _read(self) -> None:
        data = self.path.read_bytes() if self.path.exists() else b""
        whole, _, torn = data.rpartition(b"\n")
        if torn:  # a writer that was killed: what it had not finished it had not promised
            whole = data if _is_json(torn) else whole
            data = whole.rstrip(b"\n") + b"\n" if whole else b""
            write_atomic(self.path, data)
        for number, line in enumerate(data.split(b"\n"), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                id = str(row["id"])
                if id in self.of and row.get("of") == self.of[id]:
                    self.last[id] = row
            except (ValueError, KeyError, AttributeError):
                raise ReportError(f"{self.path}, line {number}: no decision; mend or move the file") from None


def _is_json(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data), dict)
    except ValueError:
        return False
