"""What is fuzzed: each target takes any bytes, gives them to a reader as a file or a text, and lets through
only the errors that the reader promises. Whatever else comes out is a finding.
"""

import contextlib
import os
import tempfile
from pathlib import Path

import numpy as np

from ppt import rle, strict_yaml
from ppt.config import ConfigError
from ppt.records import images, jsonlines, pairs, plain_pickle, tar_members
from ppt.records.images import ImageError, ImagePolicy
from ppt.records.pairs import PairsError
from ppt.records.plain_pickle import PickleError
from ppt.records.tar_members import TarError
from ppt.rle import RleError

POLICY = ImagePolicy(max_pixels=10_000, exif="transpose", alpha="white", follow_links=False)


def codec(data: bytes) -> None:
    """A COCO RLE of two bytes of size and the rest as its string, then as a list of runs."""
    if len(data) < 3:
        return
    size, rest = [data[0], data[1]], data[2:]
    _mask({"size": size, "counts": rest})
    _mask({"size": size, "counts": [*rest]})
    corners = np.frombuffer(rest[: len(rest) // 4 * 4], np.float32).tolist()
    try:
        rle.from_json([corners], *size)
    except RleError:
        return


def _mask(value: dict) -> None:
    try:
        found = rle.check(value)
    except RleError:
        return
    pixels = rle.decode(found)
    assert pixels.shape == tuple(value["size"])
    assert pixels.sum() == rle.area(found)
    assert rle.encode(pixels) == found


def rows(data: bytes) -> None:
    """PAIRS as JSON lines and as CSV: every row is a pair or refused; the file may be refused as a whole."""
    for name, begun in (("pairs.jsonl", b""), ("pairs.csv", b""), ("pairs.csv", b"image,text,id\n")):
        try:
            found = pairs.checked(pairs.read(_file(name, begun + data)))
        except PairsError:
            continue
        for row in found:
            assert (row.pair is None) == (row.error != "") == (row.message != "")


def whole(data: bytes) -> None:
    """A JSON file of a published data set."""
    try:
        jsonlines.parse_whole(data)
    except jsonlines.RowError:
        return


def pickled(data: bytes) -> None:
    """REFER's pickles: plain data or PickleError; nothing in one is called."""
    try:
        plain_pickle.load(_file("refs(unc).p", data))
    except PickleError:
        return


def config(data: bytes) -> None:
    """A config's YAML, as a file and as what `--set` is given."""
    with contextlib.suppress(ConfigError):
        strict_yaml.read(_file("run.yaml", data))
    with contextlib.suppress(ConfigError):
        strict_yaml.parsed_override(f"a.b={data.decode('utf-8', 'surrogateescape')}")


def tar(data: bytes) -> None:
    """A tar of images and sentences: every member that is told can be read, whole, from within it."""
    path = _file("shard.tar", data)
    try:
        found = tar_members.members(path)
        with open(path, "rb") as file:
            for name, (_, size) in found.items():
                assert len(tar_members.content(file.fileno(), path, name)) == size
    except TarError:
        return


def picture(data: bytes) -> None:
    """The image gate: 8-bit RGB within the cap, or ImageError."""
    path = _file("a.jpg", data)
    try:
        loaded = images.load(path.parent, path.name, POLICY)
    except ImageError as error:
        if error.error not in ("bad_image", "too_large"):
            raise
        return
    height, width, bands = loaded.pixels.shape
    assert (loaded.pixels.dtype, bands) == (np.uint8, 3)
    assert height * width <= POLICY.max_pixels


TARGETS = {
    "codec": codec,
    "rows": rows,
    "whole": whole,
    "pickled": pickled,
    "config": config,
    "tar": tar,
    "picture": picture,
}
CORPUS = Path(__file__).parent / "corpus"
_FOLDER: list[tempfile.TemporaryDirectory[str]] = []


def seeds(name: str) -> list[Path]:
    """The files that a target begins with; among them what once was a finding."""
    return sorted((CORPUS / name).iterdir())


def _file(name: str, content: bytes) -> Path:
    """A file that holds `content`, in memory where the system has a place for that."""
    if not _FOLDER:
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        _FOLDER.append(tempfile.TemporaryDirectory(prefix="fuzz", dir=memory))
    path = Path(_FOLDER[0].name, name)
    path.write_bytes(content)
    return path
