"""An export's folder is whole or what it was before, and never takes the place of anything but an export.

export.json says what it is, export.files which files are its own; both are written last.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ppt.durable import json_lines, json_object, write_atomic
from ppt.exports.items import ExportError

MARKER = "export.json"
FILES = "export.files"
_LOCK = ".lock"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[tuple[Path, Callable[[Mapping[str, Any]], None]]]:
    """(an empty folder beside `path` to write into, what to call with export.json's content at the end).

    On leaving, the folder is `path`, and an earlier export there is gone; after an error nothing changed. One
    that was killed leaves `.<name>.exporting`, which the next removes. Raises ExportError where `path` holds
    anything but an export, or another is being made.
    """
    path = path.resolve()
    refuse_foreign(path)
    staging = path.with_name(f".{path.name}.exporting")
    staging.mkdir(parents=True, exist_ok=True)
    lock = FileLock(staging / _LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ExportError(
            f"{path}: another export is writing here; wait for it, or choose another folder"
        ) from None
    try:
        for entry in staging.iterdir():
            if entry.name != _LOCK:
                _remove(entry)
        done: list[Mapping[str, Any]] = []
        yield staging, done.append
        if done:
            _close(staging, done[-1])
            _swap(staging, path)
        else:
            shutil.rmtree(staging)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    finally:
        lock.release()


def refuse_foreign(path: Path) -> None:
    """Raises ExportError unless `path` is absent, an empty folder, or an export with nothing else in it."""
    if not path.exists():
        return
    if not path.is_dir():
        raise ExportError(f"{path}: is a file, expected a folder to export to")
    listed = _listed(path)
    for found in _files(path):
        if listed is None:
            raise ExportError(f"{path}: not empty and no export (holds {found!r}); choose another folder")
        if found not in listed:
            raise ExportError(
                f"{path}: holds {found!r}, which no export wrote; move it away, or choose another folder"
            )


def _listed(path: Path) -> set[str] | None:
    """The files that an export wrote; None where the folder is none."""
    marker = json_object(path / MARKER)
    if marker is None or marker.get("made_by") != "ppt export":
        return None
    try:
        own = (path / FILES).read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError):
        return None
    return {*own, MARKER, FILES}


def _files(folder: Path) -> Iterator[str]:
    """Every file and link below a folder, from it, in order; folders that are empty too."""
    for base, folders, files in os.walk(folder):
        folders.sort()
        links = [name for name in folders if (Path(base) / name).is_symlink()]
        for name in sorted([*files, *links]):
            found = (Path(base) / name).relative_to(folder).as_posix()
            if found != _LOCK:
                yield found


def _close(staging: Path, content: Mapping[str, Any]) -> None:
    write_atomic(staging / FILES, "\n".join(sorted(_files(staging))).encode())
    write_atomic(staging / MARKER, json_lines([{"made_by": "ppt export", **content}]))


def _swap(staging: Path, path: Path) -> None:
    old = path.with_name(f".{path.name}.exported")
    if old.exists():
        shutil.rmtree(old)
    if path.exists():
        refuse_foreign(path)  # it took a while
        path.rename(old)
    staging.rename(path)
    (path / _LOCK).unlink(missing_ok=True)
    if old.exists():
        shutil.rmtree(old)


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink()
