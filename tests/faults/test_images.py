"""Images that would take memory, time or patience: each is refused by name, or read as it says."""

import errno
import io
import json
import os
import socket
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from fixtures.processes import ENVIRONMENT
from PIL import Image, PngImagePlugin

from ppt.records import images
from ppt.records.images import ImageError, ImagePolicy, digest, load

POLICY = ImagePolicy(max_pixels=64_000_000, exif="ignore", alpha="white", follow_links=False)
MORE = 150
"""MiB that a reader may need for what it refuses: its own work, and no pixels."""


def coded(format, image, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def refusal(folder, name):
    with pytest.raises(ImageError) as caught:
        load(folder, name, POLICY)
    assert name in str(caught.value)
    return caught.value.error


# --- too much of anything


def many_scans(side, more):
    """A progressive JPEG whose last scan comes `more` times again: 14 bytes each that go over every pixel."""
    whole = coded("JPEG", Image.new("RGB", (side, side), "red"), progressive=True)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * more + b"\xff\xd9"


def text_of(length):
    """A PNG of a few hundred bytes a megabyte of text."""
    info = PngImagePlugin.PngInfo()
    info.add_text("a", "a" * length, zip=True)
    return coded("PNG", Image.new("RGB", (4, 4)), pnginfo=info)


def exif_of(length):
    """A TIFF whose EXIF promises `length` values."""
    exif = Image.Exif()
    exif[0x9286] = b"a" * 64
    content = bytearray(coded("TIFF", Image.new("RGB", (4, 4)), exif=exif))
    at = content.index(b"\x86\x92")
    content[at + 4 : at + 8] = length.to_bytes(4, "little")
    return bytes(content)


def promising(side):
    """A PNG of 16000 x 16000 pixels whose header says it has `side` x `side`."""
    content = bytearray(coded("PNG", Image.new("1", (16_000, 16_000))))
    content[16:24] = side.to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


BOMBS = {
    "12k.png": (lambda: coded("PNG", Image.new("1", (12_000, 12_000))), "too_large"),
    "16k.png": (lambda: promising(16_000), "too_large"),
    "40k.png": (lambda: promising(40_000), "too_large"),
    "scans.jpg": (lambda: many_scans(3000, 1000), "too_large"),
    "text.png": (lambda: text_of(80_000_000), "bad_image"),
    "exif.tif": (lambda: exif_of(2**31), None),
}
LOADS = """
import json, pathlib, resource, sys, time
from ppt.records.images import ImageError, ImagePolicy, load
policy, folder = ImagePolicy(64_000_000, "ignore", "white", False), pathlib.Path(sys.argv[1])
load(folder, "good.png", policy)
before, told = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, {}
for name in sys.argv[2:]:
    began = time.monotonic()
    try:
        load(folder, name, policy)
        error = None
    except ImageError as refused:
        error = refused.error
    told[name] = [error, time.monotonic() - began]
print(json.dumps([told, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024]))
"""


def test_bombs_are_refused_in_little_memory_and_time(tmp_path):
    (tmp_path / "good.png").write_bytes(coded("PNG", Image.new("RGB", (64, 64))))
    for name, (make, _) in BOMBS.items():
        (tmp_path / name).write_bytes(make())
    assert max(path.stat().st_size for path in tmp_path.iterdir()) < 150_000
    command = [sys.executable, "-c", LOADS, tmp_path, *BOMBS]
    ended = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    told, more = json.loads(ended.stdout)
    assert {name: error for name, (error, _) in told.items()} == {n: error for n, (_, error) in BOMBS.items()}
    assert max(seconds for _, seconds in told.values()) < 2
    assert more < MORE


def test_an_image_of_20_megapixels_is_read_and_one_of_usual_scans(tmp_path):
    pixels = np.zeros((4000, 5000, 3), np.uint8)
    pixels[:, 2500:] = 200
    Image.fromarray(pixels).save(tmp_path / "large.jpg", progressive=True, quality=95)
    found = load(tmp_path, "large.jpg", POLICY).pixels
    assert found.shape == pixels.shape
    assert (found[2000, 1000].max(), found[2000, 4000].min()) == (0, 200)


def test_what_a_phone_puts_behind_the_image_is_no_scan(tmp_path):
    whole = coded("JPEG", Image.new("RGB", (8, 8), "red"), progressive=True)
    (tmp_path / "film.jpg").write_bytes(whole + b"\xff\xda\0\0" * 500)
    assert load(tmp_path, "film.jpg", POLICY).format == "JPEG"


# --- modes that are rare


def test_ycck_is_cmyk_in_other_words(tmp_path):
    """Adobe's mark says by its last byte whether the four bands are CMYK (0) or YCCK (2)."""
    grey = coded("JPEG", Image.new("CMYK", (16, 16), (0, 0, 0, 128)), quality=100)
    mark = grey.index(b"Adobe") + 11
    (tmp_path / "cmyk.jpg").write_bytes(grey)
    # Stored are 255, 255, 255 and 127, inverted. As Y, Cb and Cr the first three are RGB 255, 121, 255, which
    # inverted twice is CMY: no red, no blue, and (255 - 121) * 127 / 255 of green.
    (tmp_path / "ycck.jpg").write_bytes(grey[:mark] + b"\2" + grey[mark + 1 :])
    plain, other = (load(tmp_path, name, POLICY) for name in ("cmyk.jpg", "ycck.jpg"))
    assert plain.flags == other.flags == ("mode:CMYK",)
    assert np.ptp(plain.pixels[8, 8].astype(int)) == 0
    np.testing.assert_allclose(plain.pixels[8, 8], 127, atol=3)
    np.testing.assert_allclose(other.pixels[8, 8], (0, 67, 0), atol=3)


def test_sixteen_bits_a_band_lose_their_lower_half(tmp_path):
    """A PNG of 16-bit RGB, by hand: Pillow writes none."""
    rows = b"".join(b"\0" + b"\x12\x34\x80\x00\xff\xff" * 2 for _ in range(2))
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    assert load(tmp_path, "deep.png", POLICY).pixels[1, 1].tolist() == [0x12, 0x80, 0xFF]


# --- files that are none, and disks that are not well


def test_sockets_and_what_cannot_be_opened_never_block(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        assert refusal(tmp_path, "socket.png") == "not_a_file"
    os.mkfifo(tmp_path / "b.tar")
    assert refusal(tmp_path, "b.tar/a.png") == "unreadable"  # a file is no folder


class Faulty:
    """Opening a file fails `times`, then works."""

    def __init__(self, times, number):
        self.times, self.number, self.opened = times, number, os.open

    def __call__(self, *arguments, **options):
        if self.times:
            self.times -= 1
            raise OSError(self.number, os.strerror(self.number))
        return self.opened(*arguments, **options)


@pytest.fixture
def pauses(monkeypatch):
    """How long the reader waited, in place of waiting."""
    found = []
    monkeypatch.setattr(images.time, "sleep", found.append)
    return found


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_fault_that_passes_costs_nothing_but_time(tmp_path, monkeypatch, pauses, number):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    known = digest(tmp_path, "a.png", POLICY)
    monkeypatch.setattr(images.os, "open", Faulty(2, number))
    assert load(tmp_path, "a.png", POLICY).sha256 == known
    assert len(pauses) == 2


@pytest.mark.parametrize(("number", "waits"), [(errno.EIO, 2), (errno.ESTALE, 2), (errno.EACCES, 0)])
def test_one_that_stays_is_told_after_a_while(tmp_path, monkeypatch, pauses, number, waits):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    for read in (load, digest):
        monkeypatch.setattr(images.os, "open", Faulty(99, number))
        with pytest.raises(ImageError, match=r"a\.png cannot be read: ") as caught:
            read(tmp_path, "a.png", POLICY)
        assert caught.value.error == "unreadable"
    assert len(pauses) == 2 * waits


def test_a_disk_that_fails_while_pixels_are_read_is_no_bad_image(tmp_path, monkeypatch, pauses):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")

    def fails(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(images, "_decoded", fails)
    assert refusal(tmp_path, "a.png") == "unreadable"
    assert len(pauses) == 2
