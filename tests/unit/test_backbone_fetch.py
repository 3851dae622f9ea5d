"""Fetching, against a server on this machine: whole, broken off, wrong, refused, full and offline."""

import ast
import errno
import hashlib
import os
import random
import shutil
import socket
from pathlib import Path

import pytest
from filelock import FileLock
from fixtures.servers import Server

from ppt.backbones import fetch as fetching
from ppt.backbones import weights
from ppt.backbones.fetch import FetchError, fetch
from ppt.backbones.weights import Checkpoint, WeightsError

ROOT = Path(__file__).parents[2]
SIZE = 2_500_000
CONTENT = random.Random(0).randbytes(SIZE)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
HALF = 1_000_000


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty PPT_WEIGHTS; no caches, and no proxy between this machine and itself."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("PPT_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def server():
    with Server(CONTENT) as running:
        yield running


def published(server, sha256=DIGEST, size=SIZE):
    return Checkpoint(
        "toy", "toy.bin", "`ppt weights fetch toy`", sha256, size, url=f"{server.url}/original.pth"
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_whole_file_comes_and_is_found_afterwards(server, folder):
    told = []
    found = fetch(published(server), folder, lambda there, whole: told.append((there, whole)))
    assert found == (folder / "toy.bin", DIGEST) == weights.resolve(published(server))
    assert (folder / "toy.bin").read_bytes() == CONTENT
    assert names(folder) == ["toy.bin"]
    assert told[0] == (0, len(CONTENT))
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert server.asked == [None]


def test_what_is_here_is_not_asked_for_again(server, folder, tmp_path):
    cached = tmp_path / ".cache" / "clip" / "original.pth"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(CONTENT)
    assert fetch(published(server), folder) == (cached, DIGEST)
    folder.mkdir()
    (folder / "toy.bin").write_bytes(CONTENT)
    assert fetch(published(server), folder) == (folder / "toy.bin", DIGEST)
    assert server.asked == []


def test_an_altered_file_in_the_way_is_told_and_kept(server, folder):
    folder.mkdir()
    (folder / "toy.bin").write_bytes(b"altered")
    with pytest.raises(WeightsError, match=rf"toy\.bin.*{DIGEST}.*move it away"):
        fetch(published(server), folder)
    assert (folder / "toy.bin").read_bytes() == b"altered"
    assert server.asked == []


def test_a_broken_connection_is_taken_up_at_once(server, folder):
    server.breaks_after = HALF
    assert fetch(published(server), folder)[1] == DIGEST
    assert server.asked == [None, f"bytes={HALF}-", f"bytes={2 * HALF}-"]
    assert names(folder) == ["toy.bin"]


def test_what_came_before_is_gone_on_from(server, folder):
    folder.mkdir()
    (folder / "toy.bin.part").write_bytes(CONTENT[:HALF])
    told = []
    assert fetch(published(server), folder, lambda there, _: told.append(there))[1] == DIGEST
    assert server.asked == [f"bytes={HALF}-"]
    assert told[0] == HALF


def test_a_server_that_sends_nothing_more_is_left_with_what_came(server, folder):
    folder.mkdir()
    (folder / "toy.bin.part").write_bytes(CONTENT[:HALF])
    server.breaks_after = 0
    with pytest.raises(FetchError, match=rf"ended after {HALF} of 2500000.*goes on from the {HALF} bytes"):
        fetch(published(server), folder)
    assert names(folder) == ["toy.bin.part"]
    assert (folder / "toy.bin.part").read_bytes() == CONTENT[:HALF]


def test_without_ranges_it_starts_over(server, folder):
    server.ranges = False
    folder.mkdir()
    (folder / "toy.bin.part").write_bytes(b"?" * HALF)
    assert fetch(published(server), folder)[1] == DIGEST
    assert (folder / "toy.bin").read_bytes() == CONTENT


def test_without_ranges_a_connection_that_always_breaks_is_given_up(server, folder):
    server.ranges, server.breaks_after = False, HALF
    with pytest.raises(FetchError, match="ended after"):
        fetch(published(server), folder)
    assert len(server.asked) == 2


def test_a_complete_part_is_only_verified(server, folder):
    folder.mkdir()
    (folder / "toy.bin.part").write_bytes(CONTENT)
    assert fetch(published(server), folder)[1] == DIGEST
    assert server.asked == []


def test_a_part_that_is_too_long_starts_over(server, folder):
    folder.mkdir()
    (folder / "toy.bin.part").write_bytes(CONTENT + b"more")
    assert fetch(published(server), folder)[1] == DIGEST
    assert server.asked == [f"bytes={len(CONTENT) + 4}-", None]


def test_a_part_of_something_else_is_removed(server, folder):
    folder.mkdir()
    (folder / "toy.bin.part").write_bytes(b"?" * HALF)
    found = hashlib.sha256(b"?" * HALF + CONTENT[HALF:]).hexdigest()
    with pytest.raises(FetchError, match=rf"sha256 {DIGEST}, found 2500000 bytes, sha256 {found}.*removed"):
        fetch(published(server), folder)
    assert names(folder) == []


def test_another_content_is_refused_with_both_digests(server, folder):
    with pytest.raises(FetchError, match=rf"not toy: expected 2500000 bytes, sha256 {'0' * 64}.*{DIGEST}"):
        fetch(published(server, sha256="0" * 64), folder)
    assert names(folder) == []


def test_another_size_is_not_even_begun(server, folder):
    with pytest.raises(FetchError, match="offers 2500000 bytes where 2500001 are published"):
        fetch(published(server, size=len(CONTENT) + 1), folder)
    assert names(folder) == []


def test_a_file_cut_short_without_a_word_is_noticed(server, folder):
    server.content, server.stated = CONTENT[:HALF], ""
    with pytest.raises(FetchError, match=rf"expected 2500000 bytes.*found {HALF} bytes"):
        fetch(published(server), folder)
    assert names(folder) == []


def test_nothing_is_no_file(server, folder):
    server.content = b""
    with pytest.raises(FetchError, match="found 0 bytes"):
        fetch(published(server, sha256=None, size=None), folder)
    assert names(folder) == []


@pytest.mark.parametrize("status", [403, 404, 500, 503])
def test_a_refusal_is_told_with_the_address(server, folder, status):
    server.status = status
    with pytest.raises(FetchError) as raised:
        fetch(published(server), folder)
    for part in ("toy was not fetched", f"{server.url}/original.pth answers {status}", "PPT_WEIGHTS"):
        assert part in str(raised.value)
    assert names(folder) == []


def test_a_web_page_in_its_place_is_refused(server, folder):
    server.headers = {"Content-Type": "text/html; charset=utf-8"}
    with pytest.raises(FetchError, match="answers with a web page"):
        fetch(published(server, sha256=None, size=None), folder)
    assert names(folder) == []


def test_another_part_than_asked_for_is_refused(server, folder):
    folder.mkdir()
    (folder / "toy.bin.part").write_bytes(CONTENT[:HALF])
    server.ranges, server.status = True, None
    server.answer = lambda request: (
        request.send_response(206),
        request.send_header("Content-Range", "bytes 5-9/2500000"),
        request.send_header("Content-Length", "5"),
        request.end_headers(),
        request.wfile.write(b"?????"),
    )
    with pytest.raises(FetchError, match=f"another part than that from byte {HALF} on"):
        fetch(published(server), folder)
    assert (folder / "toy.bin.part").read_bytes() == CONTENT[:HALF]


class Full:
    """A file on a disk that takes the first piece and no more."""

    def __init__(self, *arguments):
        self.file = open(*arguments)  # noqa: SIM115 -- closed below
        self.pieces = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, piece):
        self.pieces += 1
        if self.pieces > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(piece)


def test_a_full_disk_is_told_and_what_came_is_kept(server, folder, monkeypatch):
    monkeypatch.setattr(fetching, "open", Full, raising=False)
    with pytest.raises(FetchError, match=rf"cannot be written to {folder}: No space left.*make room"):
        fetch(published(server), folder)
    assert names(folder) == ["toy.bin.part"]
    monkeypatch.undo()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("PPT_WEIGHTS", str(folder))
    assert fetch(published(server), folder)[1] == DIGEST
    assert server.asked[-1] == f"bytes={2**20}-"


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(server, folder, monkeypatch):
    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=HALF))
    with pytest.raises(FetchError, match=f"2500000 bytes are to come and {HALF} are free"):
        fetch(published(server), folder)
    assert names(folder) == []


def test_a_folder_that_cannot_be_made_is_told(server, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(FetchError, match="file/weights: Not a directory"):
        fetch(published(server), tmp_path / "file" / "weights")


def test_offline_says_what_to_do(folder):
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}/original.pth"
        with pytest.raises(FetchError) as raised:
            fetch(Checkpoint("toy", "toy.bin", "", DIGEST, url=url), folder)
    for part in ("toy could not be fetched", url, "refused", f"keep it as toy.bin in {folder}"):
        assert part in str(raised.value)
    assert names(folder) == []


def test_two_at_once_do_not_meet(server, folder):
    folder.mkdir()
    with (
        FileLock(folder / "toy.bin.lock"),
        pytest.raises(FetchError, match="another process is fetching toy"),
    ):
        fetch(published(server), folder)
    assert fetch(published(server), folder)[1] == DIGEST


# --- the hub


def hub_file(server, stated, monkeypatch):
    """A checkpoint with no known digest at a hub that passes it on to another server."""
    monkeypatch.setenv("HF_ENDPOINT", f"{server.url}/")
    below = "/somebody/toy-1/resolve/c0ffee/open_clip_pytorch_model.bin"
    server.redirects = {below: {"Location": "/elsewhere", "X-Linked-ETag": f'"{stated}"'}}
    return Checkpoint("toy", "toy.bin", "", url=f"https://huggingface.co{below}", hub="somebody/toy-1")


def test_what_the_hub_states_is_what_has_to_come(server, folder, monkeypatch):
    assert fetch(hub_file(server, DIGEST, monkeypatch), folder) == (folder / "toy.bin", DIGEST)


def test_what_the_hub_does_not_state_is_refused(server, folder, monkeypatch):
    with pytest.raises(FetchError, match=rf"sha256 {'1' * 64}, found 2500000 bytes, sha256 {DIGEST}"):
        fetch(hub_file(server, "1" * 64, monkeypatch), folder)
    assert names(folder) == []


def test_a_range_is_asked_of_the_server_behind_the_hub(server, folder, monkeypatch):
    server.breaks_after = HALF
    assert fetch(hub_file(server, DIGEST, monkeypatch), folder)[1] == DIGEST
    assert server.asked == [None, f"bytes={HALF}-", f"bytes={2 * HALF}-"]


def test_nothing_else_in_the_library_or_the_corridor_opens_a_connection():
    speakers = {"urllib.request", "http.client", "requests", "httpx", "huggingface_hub", "ftplib", "aiohttp"}
    found = set()
    for path in [*ROOT.glob("ppt/**/*.py"), *ROOT.glob("pipelines/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if speakers & {*names, *(name.split(".")[0] for name in names)}:
                found.add(path.relative_to(ROOT).as_posix())
    assert found == {"ppt/backbones/fetch.py"}
