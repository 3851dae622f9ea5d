"""Files that are all there or not there at all, and the few formats the storeroom keeps in them."""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ppt.config import canonical_json
from ppt.places import Place, Remote, size

_SEAL = "seal"
_REMEDIES = {
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room within the quota",
    errno.EFBIG: "allow larger files",
    errno.EROFS: "make the folder writable",
    errno.EACCES: "make the folder writable",
    errno.EPERM: "make the folder writable",
    errno.ENOENT: "bring the folder back, which has gone",
    errno.ESTALE: "bring the file server back",
    errno.EIO: "look after the disk",
}


class StorageError(OSError):
    """A file that could not be written or read; the text names it, why, and what to do."""

    def __init__(self, path: Place, failed: str, error: OSError) -> None:
        remedy = _REMEDIES.get(error.errno or 0, "mend that")
        super().__init__(
            f"{path}: could not be {failed} ({error.strerror or error}); {remedy}, then the same command"
            " goes on from there"
        )


def write_atomic(path: Place, data: bytes, writer: str = "") -> None:
    """Write a file so that a reader, or a crash, finds either all of it or what was there before.

    writer: a name of one's own, where others may be writing the same file at the same time. Raises
    StorageError where it cannot be written; what was there before still is.
    """
    if isinstance(path, Remote):
        path.write_bytes(data)
        failpoint("after_rename")
        return
    temporary = path.with_name(f"{path.name}.{writer}.tmp" if writer else f"{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            failpoint("after_tmp")
            file.flush()
            os.fsync(file.fileno())
        failpoint("after_fsync")
        os.replace(temporary, path)
        failpoint("after_rename")
        _sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise StorageError(path, "written", error) from error
        raise


def ensure(path: Place, data: bytes, writer: str = "") -> None:
    """Write the file, as `write_atomic` does, unless these are already its bytes."""
    try:
        known = read_bytes(path) == data
    except FileNotFoundError:
        known = False
    if not known:
        write_atomic(path, data, writer)


def read_bytes(path: Place) -> bytes:
    """All of a file. Raises FileNotFoundError, and StorageError where it is there and cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(path, "read", error) from error


def failpoint(name: str) -> None:
    """Die here, as in a power cut, the count-th time here, if PPT_FAILPOINT is "name:count". For tests."""
    wanted, _, count = os.environ.get("PPT_FAILPOINT", "").partition(":")
    if wanted == name:
        if int(count) <= 1:
            os._exit(137)
        os.environ["PPT_FAILPOINT"] = f"{name}:{int(count) - 1}"


def identity(data: bytes) -> dict[str, Any]:
    """What bytes are known by: {"sha256": hex, "bytes": count}."""
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def is_intact(path: Place, known: Mapping[str, Any]) -> bool:
    """Whether the file is there with the bytes it is known by; a wrong size is seen without reading."""
    try:
        return size(path) == known["bytes"] and identity(read_bytes(path)) == known
    except FileNotFoundError:
        return False


def json_lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as canonical JSON, one a line."""
    return "".join(canonical_json(row) + "\n" for row in rows).encode()


def parsed_lines(data: bytes) -> Iterator[dict[str, Any]]:
    """The rows of `json_lines`."""
    # Not splitlines(): text may hold U+2028 and its like, which end no line of JSON.
    yield from (json.loads(line) for line in data.decode().split("\n") if line)


def json_object(path: Place) -> dict[str, Any] | None:
    """The object in a small JSON file; None where it is absent, cut off or zero-filled."""
    try:
        data = read_bytes(path)
        value: Any = json.loads(data) if data.endswith(b"\n") else None
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None  # pyright: ignore[reportUnknownVariableType]


def sealed(value: Mapping[str, Any]) -> bytes:
    """An object as a small JSON file that knows its own sha256."""
    return json_lines([{**value, _SEAL: _digest(value)}])


def sealed_object(path: Place) -> dict[str, Any] | None:
    """What was `sealed`; None where it is absent, or a single bit of it is another."""
    value = json_object(path)
    if value is None or value.pop(_SEAL, None) != _digest(value):
        return None
    return value


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
