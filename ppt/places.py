"""Where files lie: on a disk, or in a store that fsspec knows, as s3://bucket/run.

A `Place` is a pathlib.Path or a `Remote`, which has of Path's interface what the stages use. A file on a disk
is written beside its place and renamed (`durable`); an object in a store is put there whole under its name.

What asks a store is tried `TRIES` times, with longer and longer waits between. What it answers (there is
none, you may not) is the same error as of a disk; what it fails to answer is a `RemoteError`, which no reader
of files takes for a bad file: the run stops and can be resumed.
"""

import errno
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias, TypeVar, cast

import fsspec  # pyright: ignore[reportMissingTypeStubs]

S = TypeVar("S")
T = TypeVar("T")

TRIES = 5
WAIT = 0.25
"""Seconds before the second try; twice as long before each of the next."""
AT_ONCE = 16
"""Questions that a store is asked at a time."""
LOCAL = ("file", "local")
PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
"""Of protocols, where it is known."""


class PlaceError(ValueError):
    """A URL that names no place we can go to; the text says why and what to do."""


class RemoteError(Exception):
    """A store that did not do what it was asked, however often; the text names the URL."""


@dataclass(frozen=True, order=True)
class Remote:
    """An object in a store, or a folder of them: all whose names begin with its own and a slash.

    path: the URL after "protocol://", as bucket/run; no part of it is empty, "." or "..".
    """

    protocol: str
    path: str

    def __str__(self) -> str:
        return f"{self.protocol}://{self.path}"

    def __truediv__(self, below: str) -> "Remote":
        path = PurePosixPath(below)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{self}: {below!r:.200} leads out of it")
        return Remote(self.protocol, "/".join((self.path, *path.parts)))

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> "Remote":
        """The folder it lies in; a bucket is its own."""
        return Remote(self.protocol, self.path.rpartition("/")[0] or self.path)

    def with_name(self, name: str) -> "Remote":
        return self.parent / name

    def with_suffix(self, suffix: str) -> "Remote":
        return self.with_name(self.stem + suffix)

    def resolve(self) -> "Remote":
        return self

    def absolute(self) -> "Remote":
        return self

    def read_bytes(self) -> bytes:
        """All of the object: as many bytes as the store says that it has."""
        found = self.read_within(sys.maxsize)
        assert found is not None  # nothing has more
        return found

    def read_within(self, most: int) -> bytes | None:
        """All of the object; None, and nothing is fetched, where it has more bytes than `most`."""
        return self._tried("reading", lambda store: self._read(store, most))

    def _read(self, store: Any, most: int) -> bytes | None:
        stated = self._info(store)["size"]
        if stated > most:
            return None
        # Asked for a range it is one request; of a whole object some stores ask for the size once more.
        data = store.cat_file(str(self), start=0, end=stated) if stated else b""
        if len(data) != stated:
            raise OSError(f"{len(data)} bytes came, of {stated}")
        return data

    def write_bytes(self, data: bytes) -> None:
        """Put the object there; a reader finds all of it, or what was there before."""

        def put(store: Any) -> None:
            store.pipe_file(str(self), data)
            if (there := self._info(store)["size"]) != len(data):
                raise OSError(f"{there} bytes are there, of {len(data)}")

        self._tried("writing", put)

    def size(self) -> int:
        """In bytes. Raises FileNotFoundError."""
        return self._tried("looking up", self._info)["size"]

    def _info(self, store: Any) -> dict[str, Any]:
        found = store.info(str(self))
        if found["type"] != "file":
            raise FileNotFoundError
        return found

    def is_file(self) -> bool:
        try:
            return self.size() >= 0
        except FileNotFoundError:
            return False

    def exists(self) -> bool:
        """Whether there is such an object, or one below."""
        return self._tried("looking up", lambda store: store.exists(str(self)))

    def is_dir(self) -> bool:
        return self._tried("looking up", lambda store: store.isdir(str(self)))

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: a folder is there with what lies below it."""

    def rmdir(self) -> None:
        """Nothing: a folder goes with what lay below it."""

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            self._tried("removing", lambda store: store.rm_file(str(self)))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def iterdir(self) -> Iterator["Remote"]:
        """What lies right below, in order; nothing where there is no such folder."""

        def listed(store: Any) -> list[str]:
            try:
                return store.ls(str(self), detail=False)
            except FileNotFoundError:
                return []

        names = {name.rstrip("/").rpartition("/")[2] for name in self._tried("listing", listed)}
        yield from (self / name for name in sorted(names - {self.name, ""}))

    def glob(self, pattern: str) -> Iterator["Remote"]:
        """What lies below and is named by the pattern, as a*/b?.png: every part of it one folder deeper."""
        first, _, rest = pattern.partition("/")
        for found in self.iterdir():
            if fnmatchcase(found.name, first):
                yield from found.glob(rest) if rest else (found,)

    def remove_all(self) -> None:
        """Remove everything below."""

        def remove(store: Any) -> None:
            if store.exists(str(self)):
                store.rm(str(self), recursive=True)

        self._tried("removing", remove)

    def _tried(self, doing: str, ask: Callable[[Any], T]) -> T:
        """What comes of asking the store. Raises RemoteError where nothing does, and errors of files."""
        last: Exception | None = None
        for number in range(TRIES):
            if number:
                time.sleep(WAIT * 2 ** (number - 1))
            try:
                return ask(_store(self.protocol))
            except FileNotFoundError:
                raise FileNotFoundError(errno.ENOENT, "does not exist", str(self)) from None
            except PermissionError as error:
                raise PermissionError(errno.EACCES, f"may not be reached ({error})", str(self)) from error
            except NotImplementedError as error:
                raise RemoteError(f"{self}: {doing} is nothing that {self.protocol}:// can do") from error
            except Exception as error:  # every protocol has its own; also those of the network beneath
                last = error
        told = f"{type(last).__name__}: {last}"
        raise RemoteError(
            f"{self}: {doing} failed {TRIES} times ({told}); once it can be reached, the same command resumes"
        ) from last


Place: TypeAlias = Remote | Path


def place(text: str) -> Place:
    """The place that a path or a URL names. Raises PlaceError for a URL of a protocol that is not known, or
    whose package is not installed, and for one that names nothing.
    """
    return _remote(text) if is_url(text) else Path(_local(text))


def is_url(text: str) -> bool:
    """Whether it names a place in a store, rather than one on a disk."""
    protocol, url, _ = text.partition("://")
    return bool(url) and protocol not in LOCAL


def on_disk(found: Place, what: str) -> Path:
    """The path. Raises PlaceError for a place in a store, saying that `what` has to be on a disk."""
    if isinstance(found, Remote):
        raise PlaceError(f"{what}: expected a place on a disk, got {found}; copy it, and name the copy")
    return found


def size(found: Place) -> int:
    """Of a file, in bytes. Raises FileNotFoundError."""
    return found.size() if isinstance(found, Remote) else found.stat().st_size


def above_all(folders: Sequence[Place]) -> Place:
    """The lowest folder that holds all of them, which are absolute. Raises PlaceError where there is none."""
    paths = [folder for folder in folders if isinstance(folder, Path)]
    if len(paths) == len(folders):
        return Path(os.path.commonpath(paths))
    remotes = [folder for folder in folders if isinstance(folder, Remote)]
    path = "" if paths else os.path.commonpath([one.path for one in remotes])
    if not path or len({one.protocol for one in remotes}) > 1:
        named = ", ".join(str(one) for one in sorted(set(map(str, folders))))
        raise PlaceError(f"the images of a run have to lie in one bucket, or on one disk; got {named}")
    return Remote(remotes[0].protocol, path)


def from_above(found: Place, folder: Place) -> str:
    """The path of a place from a folder above it, as a/b; "" where that is itself."""
    if isinstance(found, Remote):
        return found.path[len(folder.path) + 1 :] if isinstance(folder, Remote) else str(found)
    path = found.relative_to(str(folder))
    return path.as_posix() if path.parts else ""


def each(ask: Callable[[S], T], items: Iterable[S], folder: Place) -> Iterator[T]:
    """What `ask` says of every item, in order, as map() does; several at once where that asks a store."""
    if not isinstance(folder, Remote):
        yield from map(ask, items)
        return
    with ThreadPoolExecutor(AT_ONCE) as pool:
        waiting: deque[Future[T]] = deque()
        for item in items:
            waiting.append(pool.submit(ask, item))
            if len(waiting) == AT_ONCE:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def rename(found: Place, name: str) -> None:
    """Give a file another name in its folder; an object in a store is copied there first."""
    if isinstance(found, Path):
        found.replace(found.with_name(name))
        return
    found.with_name(name).write_bytes(found.read_bytes())
    found.unlink()


def remove_folder(folder: Place) -> None:
    """Remove a folder, where there is one, and everything in it."""
    if isinstance(folder, Remote):
        folder.remove_all()
    elif folder.exists():
        shutil.rmtree(folder)


def _local(text: str) -> str:
    protocol, url, path = text.partition("://")
    return path if url and protocol in LOCAL else text


def _remote(text: str) -> Remote:
    protocol, _, path = text.partition("://")
    path = path.rstrip("/")
    parts = path.split("/")
    if not all(parts) or {".", ".."} & set(parts):
        raise PlaceError(f"{text}: expected {protocol}://bucket/folder, without empty parts and without '..'")
    try:
        cast(Any, fsspec).get_filesystem_class(protocol)
    except ImportError as error:
        remedy = f"pip install {PACKAGES[protocol]}" if protocol in PACKAGES else str(error)
        raise PlaceError(f"{text}: its package is not installed: {remedy}") from error
    except ValueError as error:
        raise PlaceError(f"{text}: no protocol of that name is known ({error})") from error
    return Remote(protocol, path)


def _store(protocol: str) -> Any:
    """The store's file system, which remembers no listing: another process may be writing. The tries are ours
    alone, so those of its own are turned off where they can be.
    """
    options: dict[str, Any] = {"use_listings_cache": False}
    if protocol in ("s3", "s3a"):
        known: dict[str, Any] = cast(Any, fsspec).config.conf.get("s3", {}).get("config_kwargs", {})
        options["config_kwargs"] = {"retries": {"total_max_attempts": 1}, **known}
    store = cast(Any, fsspec).filesystem(protocol, **options)
    if protocol in ("s3", "s3a"):
        store.retries = 1
    return store
