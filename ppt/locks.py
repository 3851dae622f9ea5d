"""Who may write to an artifact's folder: one run all of it, or several processes a share of it each.

    .lock               held by whoever writes the whole, and for a moment by whoever begins a share
    .lock.<host>-<pid>  held by a process that writes a share

The operating system lets go of a lock when its holder dies, whatever killed it.
"""

import os
import socket
from pathlib import Path

from filelock import FileLock, Timeout

NAME = ".lock"


def whole(folder: Path, patience: float = 0.0) -> FileLock:
    """The lock of all of it, held; waits for it up to `patience` seconds. Raises Timeout."""
    lock = FileLock(folder / NAME, timeout=patience)
    lock.acquire()
    return lock


def share(folder: Path) -> FileLock:
    """The lock of this process's share, held. To be asked while holding that of the whole."""
    lock = FileLock(folder / f"{NAME}.{socket.gethostname()}-{os.getpid()}", timeout=0)
    lock.acquire()
    return lock


def sharers(folder: Path) -> list[str]:
    """The locks of shares that are being written; those that nobody holds any more are removed. To be asked
    while holding that of the whole.
    """
    held: list[str] = []
    for path in sorted(folder.glob(f"{NAME}.*")):
        try:
            with FileLock(path, timeout=0):
                path.unlink(missing_ok=True)
        except Timeout:
            held.append(path.name)
    return held
