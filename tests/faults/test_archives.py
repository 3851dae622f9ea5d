"""WebDataset's tars that mean harm: nothing outside of them is read, nothing in them is run, none hangs."""

import io
import os
import pickle
import tarfile
import time

import pytest
from fixtures.pictures import picture
from PIL import Image

from ppt.records import images, pairs, tar_members
from ppt.records.images import ImageError, ImagePolicy
from ppt.records.pairs import PairsError
from ppt.records.sources import READERS
from ppt.records.tar_members import TarError
from ppt.settings import RecordsConfig, SourceConfig

POLICY = ImagePolicy(10**6, "ignore", "white", follow_links=False)


def png():
    buffer = io.BytesIO()
    Image.fromarray(picture({"left": "red"})).save(buffer, "PNG")
    return buffer.getvalue()


def member(name, content=b"", **changed):
    """A file of a tar, and what it holds; `changed` are attributes of its header."""
    header = tarfile.TarInfo(name)
    header.size = len(content)
    for key, value in changed.items():
        setattr(header, key, value)
    return header, content


def packed(path, *members):
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for header, content in members:
            tar.addfile(header, io.BytesIO(content))
    return path


def read(path):
    found = READERS["webdataset"](SourceConfig(format="webdataset", path=path), RecordsConfig())
    return pairs.checked(found.pairs)


def test_members_that_lead_out_or_are_no_files_are_refused_or_not_there(tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "secret.png").write_bytes(png())
    path = packed(
        tmp_path / "s.tar",
        member("good.png", png()), member("good.txt", b"the red disc"),
        member("../up.png", png()), member("../up.txt", b"red"),
        member("/abs.png", png()), member("/abs.txt", b"red"),
        member("link.png", type=tarfile.SYMTYPE, linkname="secret.png"), member("link.txt", b"red"),
        member("hard.png", type=tarfile.LNKTYPE, linkname="../secret.png"), member("hard.txt", b"red"),
        member("dev.png", type=tarfile.CHRTYPE, devmajor=1, devminor=5), member("dev.txt", b"red"),
        member("pipe.png", type=tarfile.FIFOTYPE), member("pipe.txt", b"red"),
        member("said.png", png()), member("said.txt", type=tarfile.SYMTYPE, linkname="secret.txt"),
    )  # fmt: skip
    rows = read(path)
    kept = {row.pair.image for row in rows if row.pair is not None}
    assert kept == {"s.tar/good.png", "s.tar//abs.png"}, "an absolute name is one within the tar"
    assert all(images.load(tmp_path, name, POLICY).pixels.shape == (48, 64, 3) for name in kept)
    assert {row.error for row in rows if row.pair is None} == {"unsafe_path", "bad_value"}
    assert not any("secret" in row.message for row in rows)
    for name in ("link.png", "hard.png", "dev.png", "pipe.png"):
        with pytest.raises(ImageError, match="has no file"):
            images.load(tmp_path, f"s.tar/{name}", POLICY)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["s.tar", "secret.png", "secret.txt"]


class Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickles_and_programs_in_a_tar_are_never_opened(tmp_path):
    evil = pickle.dumps(Runs(tmp_path / "ran"))
    names = ("pickle", "pkl", "pyd", "pth", "npy", "py")
    members = [member(f"a.{name}", evil) for name in names]
    rows = read(packed(tmp_path / "s.tar", member("a.png", png()), member("a.txt", b"red"), *members))
    assert [row.pair.text for row in rows] == ["red"]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content", [b'{"text": "a", "text": "b"}', b'{"text": NaN}', b"\xef\xbb\xbf{}", b"[" * 99999]
)
def test_a_sentence_in_json_that_breaks_its_rules_costs_its_row(tmp_path, content):
    rows = read(packed(tmp_path / "s.tar", member("a.png", png()), member("a.json", content)))
    assert [row.error for row in rows] == ["bad_value"]


def test_a_sentence_of_megabytes_costs_its_row(tmp_path):
    rows = read(packed(tmp_path / "s.tar", member("a.png", png()), member("a.txt", b"a" * (2**20 + 1))))
    assert [row.error for row in rows] == ["bad_value"]


def headed(size):
    """A header of a file that says it has `size` bytes, which may be fewer than none."""
    block = bytearray(tarfile.TarInfo("a.jpg").tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"\xff" * 4 + (size % 2**64).to_bytes(8, "big") if size < 0 else b"%011o\0" % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    "content",
    [
        headed(-512) + bytes(1024),
        headed(0) + headed(-1024) + bytes(1024),
        headed(-(2**40)) + bytes(1024),
        (tarfile.TarInfo("x").tobuf(tarfile.GNU_FORMAT)[:156] + b"L") * 3,
        b"\x1f\x8b" + bytes(2000),
        b"nothing",
        b"",
    ],
)
def test_a_tar_that_leads_back_or_is_none_is_refused_at_once(tmp_path, content):
    (tmp_path / "s.tar").write_bytes(content)
    began = time.monotonic()
    with pytest.raises(PairsError, match=r"s\.tar is no tar that can be read"):
        read(tmp_path / "s.tar")
    assert time.monotonic() - began < 2


def test_thousands_of_headers_about_one_file_are_refused(tmp_path):
    long = tarfile.TarInfo("x")
    long.type, long.size = tarfile.GNUTYPE_LONGNAME, 512
    (tmp_path / "s.tar").write_bytes((long.tobuf(tarfile.GNU_FORMAT) + b"n" * 512) * 3000 + bytes(1024))
    with pytest.raises(TarError, match="recursion"):
        tar_members.members(tmp_path / "s.tar")


def test_a_file_that_is_longer_than_its_tar_is_refused(tmp_path):
    (tmp_path / "s.tar").write_bytes(headed(2**33 - 1) + bytes(1024))
    with pytest.raises(TarError, match="unexpected end of data"):
        tar_members.members(tmp_path / "s.tar")
