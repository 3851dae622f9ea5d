"""Files that are all there or not there at all, and the few formats the storeroom keeps in them."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ppt.config import canonical_json
from ppt.places import Place, Remote, size


def write_atomic(path: Place, data: bytes) -> None:
    """Write a file so that a reader, or a crash, finds either all of it or what was there before."""
    if isinstance(path, Remote):
        path.write_bytes(data)
        failpoint("after_rename")
        return
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            failpoint("after_tmp")
            file.flush()
            os.fsync(file.fileno())
        failpoint("after_fsync")
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    failpoint("after_rename")
    _sync_folder(path.parent)


def ensure(path: Place, data: bytes) -> None:
    """Write the file unless these are already its bytes."""
    try:
        known = path.read_bytes() == data
    except FileNotFoundError:
        known = False
    if not known:
        write_atomic(path, data)


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
        return size(path) == known["bytes"] and identity(path.read_bytes()) == known
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
        data = path.read_bytes()
        value: Any = json.loads(data) if data.endswith(b"\n") else None
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None  # pyright: ignore[reportUnknownVariableType]


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
