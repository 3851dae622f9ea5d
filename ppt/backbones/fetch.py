"""Getting a published checkpoint: the one place in the project that asks the network, and only when told to.

The file grows as `<file>.part` beside its place, so that a transfer that breaks goes on where it stopped, by
HTTP's Range: at once for as long as something still comes, and again at the next call. It gets its name when
it is whole and verified: by the published size and sha256, or, where none is known, by the sha256 that
Hugging Face states for the file.
"""

import http.client
import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ppt.backbones.published import HUB
from ppt.backbones.weights import ENVIRONMENT_FOLDER, Checkpoint, file_sha256, find

_PIECE = 2**20
_PATIENCE = 60
"""Seconds to wait for a byte."""
_SHA256 = re.compile(r'"([0-9a-f]{64})"')

Progress = Callable[[int, int | None], None]
"""Told how many bytes there are, and how many there will be, None where the server does not say."""


class FetchError(RuntimeError):
    """A checkpoint could not be fetched; the message says what, from where, why, and what to do."""


class _TransferError(Exception):
    """The server could not be reached, or what it sent ended early."""


@dataclass
class _Told:
    """What servers say of a file on the way: its sha256 in lower-case hex, or None."""

    sha256: str | None = None

    def hear(self, headers: Message) -> None:
        """Hugging Face names the sha256 where it passes one on to the server that has the bytes."""
        found = _SHA256.fullmatch(headers.get("X-Linked-ETag", ""))
        self.sha256 = found[1] if found else self.sha256


class _Redirects(urllib.request.HTTPRedirectHandler):
    """urllib's own, that listens."""

    def __init__(self, told: _Told) -> None:
        self._told = told

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any) -> Any:
        self._told.hear(headers)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(
    checkpoint: Checkpoint, folder: Path, progress: Progress = lambda there, whole: None
) -> tuple[Path, str]:
    """The file of a checkpoint and its sha256: what is already here, or `folder / checkpoint.file`, fetched.

    Raises WeightsError for a file in our folders that is not what its name says; FetchError for the rest.
    """
    here = find(checkpoint)
    if here is not None:
        return here
    part, lock = folder / f"{checkpoint.file}.part", folder / f"{checkpoint.file}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=0):
            try:
                told = _get(checkpoint, part, progress)
                sha256 = _checked(checkpoint, part, told)
                os.replace(part, folder / checkpoint.file)
            finally:
                lock.unlink(missing_ok=True)
    except Timeout:
        raise FetchError(f"another process is fetching {checkpoint.name} to {folder}; wait for it") from None
    except OSError as error:
        raise FetchError(_unwritten(checkpoint, folder, error.strerror or str(error))) from error
    return folder / checkpoint.file, sha256


def _get(checkpoint: Checkpoint, part: Path, progress: Progress) -> _Told:
    """Fill `part`, going on from what is there for as long as every try brings more."""
    told, most = _Told(), _length(part)
    while _length(part) != checkpoint.size:
        try:
            _transfer(checkpoint, part, told, progress)
            break
        except _TransferError as error:
            if _length(part) <= most:
                raise FetchError(_unreached(checkpoint, part, str(error))) from error
            most = _length(part)
    return told


def _transfer(checkpoint: Checkpoint, part: Path, told: _Told, progress: Progress) -> None:
    """One request for what `part` lacks, written to its end; all of it where the server knows no ranges."""
    there = _length(part)
    with _opened(checkpoint, there, told) as response:
        told.hear(response.headers)
        if response.headers.get_content_type() == "text/html":
            raise FetchError(_refused(checkpoint, "answers with a web page in place of the file"))
        there = there if response.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        coming = response.headers.get("Content-Length")
        whole = there + int(coming) if coming else None
        if checkpoint.size is not None and whole not in (None, checkpoint.size):
            raise FetchError(
                _refused(checkpoint, f"offers {whole} bytes where {checkpoint.size} are published")
            )
        free = shutil.disk_usage(part.parent).free
        if whole is not None and whole - there > free:
            reason = f"{whole - there} bytes are to come and {free} are free"
            raise FetchError(_unwritten(checkpoint, part.parent, reason))
        with open(part, "ab" if there else "wb") as file:
            progress(there, whole)
            while piece := _read(response):
                file.write(piece)
                there += len(piece)
                progress(there, whole)
            file.flush()
            os.fsync(file.fileno())
    if whole is not None and there < whole:
        raise _TransferError(f"the connection ended after {there} of {whole} bytes")


def _opened(checkpoint: Checkpoint, there: int, told: _Told) -> Any:
    """The response to a request for all bytes from `there` on. Raises _TransferError and FetchError."""
    headers = {"User-Agent": "ppt", "Accept-Encoding": "identity"}
    if there:
        headers["Range"] = f"bytes={there}-"
    request = urllib.request.Request(address(checkpoint), headers=headers)
    try:
        response = urllib.request.build_opener(_Redirects(told)).open(request, timeout=_PATIENCE)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and there:
            return _opened(checkpoint, 0, told)  # what is there is no beginning of it
        raise FetchError(_refused(checkpoint, f"answers {error.code} {error.reason}")) from error
    except (OSError, http.client.HTTPException) as error:
        raise _TransferError(str(getattr(error, "reason", error)) or type(error).__name__) from error
    sent_from = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if response.status == http.HTTPStatus.PARTIAL_CONTENT and (not sent_from or int(sent_from[1]) != there):
        response.close()
        raise FetchError(_refused(checkpoint, f"sends another part than that from byte {there} on"))
    return response


def _read(response: Any) -> bytes:
    try:
        return response.read(_PIECE)
    except (OSError, http.client.HTTPException) as error:
        raise _TransferError(str(error) or type(error).__name__) from error


def _checked(checkpoint: Checkpoint, part: Path, told: _Told) -> str:
    """The sha256 of the published file. Another one is removed, for nothing could be added to mend it.

    Raises FetchError with both digests.
    """
    size, sha256 = _length(part), file_sha256(part)
    expected = checkpoint.sha256 or told.sha256
    if size and checkpoint.size in (None, size) and expected in (None, sha256):
        return sha256
    part.unlink()
    published = f"{checkpoint.size} bytes, " if checkpoint.size is not None else ""
    raise FetchError(
        f"what {address(checkpoint)} sent is not {checkpoint.name}: expected {published}sha256 {expected}, "
        f"found {size} bytes, sha256 {sha256}; it was removed; try again, and if it comes again, "
        f"{_otherwise(checkpoint, part.parent)}"
    )


def address(checkpoint: Checkpoint) -> str:
    """The URL that is asked: the published one; for the hub, at the host that `HF_ENDPOINT` names."""
    endpoint = os.environ.get("HF_ENDPOINT") or HUB
    return checkpoint.url.replace(HUB, endpoint.rstrip("/"), 1)


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _unreached(checkpoint: Checkpoint, part: Path, reason: str) -> str:
    kept = _length(part)
    again = f"goes on from the {kept} bytes that {part} keeps" if kept else "tries again"
    return (
        f"{checkpoint.name} could not be fetched from {address(checkpoint)}: {reason}; the same command "
        f"{again}; without a network, {_otherwise(checkpoint, part.parent)}"
    )


def _refused(checkpoint: Checkpoint, reason: str) -> str:
    return (
        f"{checkpoint.name} was not fetched: {address(checkpoint)} {reason}; try again later, or "
        f"{_otherwise(checkpoint, None)}"
    )


def _unwritten(checkpoint: Checkpoint, folder: Path, reason: str) -> str:
    return (
        f"{checkpoint.name} cannot be written to {folder}: {reason}; what came is kept, and the same command "
        f"goes on from there: make room, or name another folder in {ENVIRONMENT_FOLDER}"
    )


def _otherwise(checkpoint: Checkpoint, folder: Path | None) -> str:
    where = folder or f"the folder that {ENVIRONMENT_FOLDER} names"
    return f"get it elsewhere and keep it as {checkpoint.file} in {where}"
