"""Files inside uncompressed tars, read where they lie: `shard-000.tar/0001.jpg`. Nothing is unpacked.

Only regular members exist here: a link, a device or a hole is none, so what is read cannot lie outside.
"""

import functools
import os
import tarfile
from pathlib import Path


class TarError(ValueError):
    """A tar that cannot be read, or has no such member."""


def inside(root: Path, image: str) -> tuple[Path, str] | None:
    """(the tar, name of the member) of `a.tar/b.jpg`; None for a path through no tar: a folder may be called
    a.tar.
    """
    before, found, member = image.partition(".tar/")
    path = root / f"{before}.tar"
    return (path, member) if found and member and path.is_file() else None


def members(path: Path) -> dict[str, tuple[int, int]]:
    """Name -> (offset, size) in bytes of every regular member, in order; of one name the first counts.

    Raises TarError.
    """
    try:
        status = path.stat()
        return _members(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise TarError(f"{path.name} cannot be read: {error.strerror or error}") from error


@functools.lru_cache(maxsize=64)
def _members(path: Path, changed: int, size: int) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    behind = -1
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.size < 0 or member.offset <= behind:  # a reader would go round for ever
                    raise TarError(f"{path.name} is no tar that can be read: a member leads back")
                behind = member.offset
                whole = member.isreg() and not member.issparse()
                if whole and member.offset_data + member.size <= size:
                    found.setdefault(member.name.removeprefix("./"), (member.offset_data, member.size))
    except (TarError, OSError, MemoryError):
        raise
    except Exception as error:  # tarfile raises several unrelated types for foreign bytes
        reason = str(error) or type(error).__name__
        raise TarError(f"{path.name} is no tar that can be read: {reason}") from error
    return found


def content(file: int, path: Path, member: str) -> bytes:
    """The bytes of a member of the tar at `path`, which is open as `file`. Raises TarError."""
    place = members(path).get(member)
    if place is None:
        raise TarError(f"{path.name} has no file {member!r:.200}")
    offset, size = place
    found = os.pread(file, size, offset)
    if len(found) != size:
        raise TarError(f"{path.name} ends within {member!r:.200}")
    return found
