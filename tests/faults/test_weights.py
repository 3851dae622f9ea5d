"""`ppt weights` where things go wrong: a line that says what to do, no traceback, and nothing half done.

Checkpoints of the hub are fetched from a server on this machine, which `HF_ENDPOINT` names in its place.
"""

import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import time

import pytest
from fixtures.processes import ENVIRONMENT
from fixtures.servers import Server

from pipelines import cli

NAME = "ViT-B-16.laion2b_s34b_b88k"
CONTENT = random.Random(0).randbytes(2_500_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
PIECE = 2**20
WITHIN = 60
"""Seconds for what takes three."""


@pytest.fixture
def server():
    with Server(CONTENT) as running:
        yield running


@pytest.fixture
def folder(server, tmp_path, monkeypatch):
    """An empty PPT_WEIGHTS in an empty home; the hub is the server."""
    for name in ("XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "PPT_TRACEBACK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("PPT_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture
def ppt(folder, monkeypatch, capsys):
    """`ppt weights ...` in this process: (exit code, printed, printed as error)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["ppt", "weights", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        printed, error = capsys.readouterr()
        assert "Traceback" not in error
        return code, printed, error

    return call


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_fetched_is_listed_found_and_verified(ppt, folder, server):
    path = folder / f"{NAME}.bin"
    assert f"{NAME}  size unknown, MIT, not here" in ppt("list")[1]
    assert ppt("fetch", NAME) == (0, f"clip {NAME}: {path}, sha256 {DIGEST}\n", "")
    assert path.read_bytes() == CONTENT
    assert f"{NAME}  size unknown, MIT, {path}" in ppt("list")[1]
    assert ppt("path", NAME) == (0, f"{path}\n", "")
    for asked in ([], [NAME]):
        code, printed, _ = ppt("verify", *asked)
        assert (code, printed.split()[0]) == (0, "ok")
        assert f"{path}, sha256 {DIGEST}; none is published" in printed
    server.status = 500
    assert ppt("fetch", NAME)[0] == 0


def test_an_unknown_name_lists_those_that_are_known(ppt, folder):
    for command in ("fetch", "path", "verify"):
        code, printed, error = ppt(command, "vit_z")
        assert (code, printed) == (2, "")
        assert "'vit_z'" in error
        assert "mobile_sam" in error
    assert not folder.exists()


def test_offline(ppt, folder, monkeypatch):
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{reserved.getsockname()[1]}")
        code, printed, error = ppt("fetch", NAME)
    assert (code, printed) == (1, "")
    assert error.startswith(f"ppt: clip {NAME} could not be fetched from http://127.0.0.1")
    for part in ("/laion/CLIP-ViT-B-16", "refused", f"keep it as {NAME}.bin in {folder}"):
        assert part in error


def test_not_there_any_more(ppt, server):
    server.status = 404
    code, _, error = ppt("fetch", NAME)
    assert code == 1
    assert "answers 404" in error


def test_altered_files_are_told(ppt, folder):
    folder.mkdir()
    (folder / "mobile_sam.pt").write_bytes(b"altered")
    found = hashlib.sha256(b"altered").hexdigest()
    for asked in ([], ["mobile_sam"], [folder / "mobile_sam.pt"]):
        code, printed, _ = ppt("verify", *asked)
        assert (code, printed.split()[0]) == (1, "WRONG")
        assert "expected 40728226 bytes, sha256 6dbb9052" in printed
        assert f"found 7 bytes, sha256 {found}; move it away" in printed
    for command in ("fetch", "path"):
        code, _, error = ppt(command, "mobile_sam")
        assert code == 2
        assert found in error


def test_what_nobody_has_published_is_told(ppt, tmp_path):
    (tmp_path / "mine.bin").write_bytes(CONTENT)
    code, printed, _ = ppt("verify", tmp_path / "mine.bin")
    assert code == 1
    assert f"mine.bin: sha256 {DIGEST} is not that of any checkpoint" in printed


def test_what_is_asked_for_and_missing_is_told(ppt):
    code, printed, _ = ppt("verify")
    assert (code, printed) == (0, "")
    for command in ("verify", "path"):
        code, _, error = ppt(command, "vit_h")
        assert code == 2
        assert "`ppt weights fetch vit_h`" in error


def test_the_doctor_says_where_weights_lie(folder, monkeypatch, capsys):
    folder.mkdir()
    (folder / "sam_vit_l_0b3195.pth").write_bytes(b"any")
    monkeypatch.setattr(sys, "argv", ["ppt", "doctor"])
    with pytest.raises(SystemExit):
        cli.main()
    printed = capsys.readouterr().out
    assert f"weights vit_l: {folder}/sam_vit_l_0b3195.pth" in printed
    assert f"weights are looked for in {folder}, " in printed


# --- stopped in the middle


def fetching():
    """`ppt weights fetch` in a process of its own."""
    environment = {**ENVIRONMENT, **os.environ}
    code = "from pipelines.cli import main; main()"
    command = [sys.executable, "-c", code, "weights", "fetch", NAME]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)


def until(condition):
    end = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_one_that_is_stopped_goes_on_where_it_was(ppt, folder, server, number):
    part = folder / f"{NAME}.bin.part"
    server.stalls_after = PIECE + 5
    process = fetching()
    until(lambda: part.exists() and part.stat().st_size == PIECE)
    process.send_signal(number)
    printed, error = process.communicate(timeout=WITHIN)
    assert printed == ""
    assert "Traceback" not in error
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number
        assert error.endswith("ppt: stopped; the same command resumes\n")
    assert part.name in names(folder)
    assert f"{NAME}.bin" not in names(folder)
    server.stalls_after = None
    assert ppt("fetch", NAME)[0] == 0
    assert server.asked == [None, f"bytes={PIECE}-"]
    assert (folder / f"{NAME}.bin").read_bytes() == CONTENT
    assert names(folder) == [f"{NAME}.bin"]
