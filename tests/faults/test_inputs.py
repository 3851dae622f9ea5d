"""Every kind of bad input in one run: each is told by name, nothing blocks, and the good pairs get their
labels.
"""

import io
import os
import socket
import struct
import subprocess
import zlib

import numpy as np
import pytest
from fixtures.pictures import HEIGHT, WIDTH, picture, read_rows, write_rows
from fixtures.processes import ENVIRONMENT, RUNNER
from PIL import Image

from ppt import rle

DISC = picture({"left": "red"})
WITHIN = 60
"""Seconds in which the run has to end: a pipe without a writer would block it for good."""


def coded(format, image=DISC, **options):
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, format, **options)
    return buffer.getvalue()


def bomb(width, height):
    """A PNG of a few bytes whose header promises width x height pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return coded("JPEG", exif=exif, quality=95)


def sixteen_bit():
    """The disc's red channel as 16-bit grey."""
    return coded("PNG", Image.fromarray(DISC[..., 0].astype(np.uint16) * 257))


def animated():
    frames = [Image.fromarray(picture({where: "red"})) for where in ("left", "right")]
    return coded("GIF", frames[0], save_all=True, append_images=frames[1:])


GOOD_IMAGES = {
    "plain.png": coded("PNG"),
    "lies.jpg": coded("PNG"),
    "cmyk.jpg": coded("JPEG", Image.fromarray(DISC).convert("CMYK"), quality=95),
    "sixteen.png": sixteen_bit(),
    "palette.png": coded("PNG", Image.fromarray(DISC).quantize(8)),
    "alpha.png": coded("PNG", Image.fromarray(np.dstack([DISC, np.full((HEIGHT, WIDTH), 255, np.uint8)]))),
    "moving.gif": animated(),
    "turned.jpg": turned(),
    "one.png": coded("PNG", Image.new("RGB", (1, 1), "red")),
    "thin.png": coded("PNG", Image.new("RGB", (700, 1), "red")),
}
BAD_IMAGES = {
    "truncated.jpg": (coded("JPEG", quality=95)[:-300], "bad_image"),
    "truncated.png": (coded("PNG")[:-60], "bad_image"),
    "zero.jpg": (b"", "bad_image"),
    "text.jpg": (b"this is no picture", "bad_image"),
    "page.png": (b"<html><body>404</body></html>", "bad_image"),
    "bomb.png": (bomb(40_000, 40_000), "too_large"),
    "bomb16.png": (bomb(16_000, 16_000), "too_large"),
    "bomb9.png": (bomb(9_000, 9_000), "too_large"),
}
NOT_FILES = {
    "gone.jpg": "missing",
    "folder": "not_a_file",
    "pipe.png": "not_a_file",
    "socket.png": "not_a_file",
}
NOT_READABLE = {"loop.png": "unreadable", "outside.png": "outside", "n" * 300 + ".png": "unreadable"}
UNSAFE = {
    "up": "../secret.png",
    "inner up": "a/../../secret.png",
    "absolute": "/etc/passwd",
    "home": "~/x.png",
    "drive": "C:\\x.png",
    "nul": "a\0.png",
    "newline": "a\nb.png",
    "long": "x" * 5000,
}
BAD_TEXTS = {"empty": "", "blank": " \t ", "dots": "...!?", "number": 7, "none": None}
GOOD_TEXTS = {
    "three hundred words": "the red disc " + "that is there " * 99,
    "german": "die rote Scheibe, größer als die übrigen",
    "arabic": "القرص الأحمر",
    "chinese": "左边的红色圆盘",
    "combining": "le cercle rouge a\u0300 gauche",
    "emoji": "🔴",
    "html": "<script>alert('red')</script> red & <b>round</b>",
    "formula": '=HYPERLINK("http://x";"red")',
    "controls": "red \x1b[31mdisc\x07 \u202e with \u2028 line",
}
ODD_IDS = ["a/b", "..", "CON", "🔴 id", "i" * 300, "<b>bold</b>", "__metadata__", "line 3", "new\nline"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run over everything: the run's folder, and how the run ended."""
    root = tmp_path_factory.mktemp("inputs")
    data = root / "data"
    data.mkdir()
    (root / "secret.png").write_bytes(coded("PNG"))
    for name, content in GOOD_IMAGES.items():
        (data / name).write_bytes(content)
    for name, (content, _) in BAD_IMAGES.items():
        (data / name).write_bytes(content)
    (data / "folder").mkdir()
    os.mkfifo(data / "pipe.png")
    here = os.getcwd()
    os.chdir(data)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
    os.chdir(here)
    (data / "loop.png").symlink_to("loop.png")
    (data / "outside.png").symlink_to(root / "secret.png")
    write_rows(data / "pairs.jsonl", good_pairs() + bad_pairs())
    with open(data / "pairs.jsonl", "ab") as file:
        file.write(b'{"id": "cut", "image": \n')
        file.write(b'{"id": "latin", "image": "plain.png", "text": "\xe9"}\n')
        file.write(b'{"id": "twice", "image": "plain.png", "text": "red", "text": "blue"}\n')
    files = ["--pairs", str(data / "pairs.jsonl"), "--output", str(root / "run")]
    command = [*RUNNER, "run", "custom", *files, "--set", "shard_size=8"]
    ended = subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, timeout=WITHIN, check=False
    )
    return root / "run", ended


def good_pairs():
    pairs = [{"id": f"image {name}", "image": name, "text": "the red disc"} for name in GOOD_IMAGES]
    pairs += [{"id": f"text {name}", "image": "plain.png", "text": text} for name, text in GOOD_TEXTS.items()]
    return pairs + [{"id": id, "image": "plain.png", "text": f"red {n}"} for n, id in enumerate(ODD_IDS)]


def bad_pairs():
    names = [*BAD_IMAGES, *NOT_FILES, *NOT_READABLE]
    pairs = [{"id": f"image {name}", "image": name, "text": "the red disc"} for name in names]
    pairs += [{"id": f"path {name}", "image": image, "text": "red"} for name, image in UNSAFE.items()]
    pairs += [{"id": f"text {name}", "image": "plain.png", "text": text} for name, text in BAD_TEXTS.items()]
    pairs.append({"id": "image plain.png", "image": "plain.png", "text": "a second time"})
    pairs.append({"id": ["no", "id"], "image": "plain.png", "text": "red"})
    return pairs


@pytest.fixture(scope="module")
def told(run):
    """id -> error of every failure of the records stage."""
    return {row["id"]: row["error"] for row in read_rows(run[0] / "records" / "failures.jsonl")}


@pytest.fixture(scope="module")
def labels(run):
    return {row["id"]: row for row in read_rows(run[0] / "labels" / "labels.jsonl")}


def test_the_run_goes_on_and_says_that_it_skipped(run, told):
    output, ended = run
    assert (ended.returncode, ended.stderr) == (3, "")
    assert f"records: {len(good_pairs())} items, {len(told)} skipped (" in ended.stdout
    assert (output / "report.html").exists()


def test_every_bad_row_is_told_by_name_with_its_stage_and_message(run, told):
    expected = {f"image {name}": error for name, (_, error) in BAD_IMAGES.items()}
    expected |= {f"image {name}": error for name, error in {**NOT_FILES, **NOT_READABLE}.items()}
    expected |= {f"path {name}": "unsafe_path" for name in UNSAFE}
    expected |= {f"text {name}": "empty_text" for name in ("empty", "blank", "dots")}
    expected |= {"text number": "bad_value", "text none": "bad_value"}
    first = (
        len(good_pairs()) + len(bad_pairs()) - 1
    )  # the last two bad pairs, then three lines that are no rows
    lines = ("duplicate_id", "bad_value", "bad_json", "bad_utf8", "duplicate_key")
    expected |= {f"line {first + number}": error for number, error in enumerate(lines)}
    assert told == expected
    for row in read_rows(run[0] / "records" / "failures.jsonl"):
        assert row["stage"] == "records"
        assert len(row["message"]) > 10


def test_the_good_rows_are_labelled_under_their_own_ids(labels):
    assert set(labels) == {pair["id"] for pair in good_pairs()}
    assert {id: row["text"] for id, row in labels.items()} == {p["id"]: p["text"] for p in good_pairs()}


@pytest.mark.parametrize("name", [n for n in GOOD_IMAGES if n not in ("sixteen.png", "one.png", "thin.png")])
def test_the_disc_is_found_in_every_format(labels, name):
    found = rle.from_json(labels[f"image {name}"]["segmentation"])
    true = (picture({}) != DISC).any(-1)
    assert rle.iou(found, rle.encode(true)) > 0.8  # JPEG frays the edge


def test_pictures_too_small_to_show_anything_are_no_evidence(labels):
    for name in ("one.png", "thin.png", "sixteen.png"):
        row = labels[f"image {name}"]
        assert (row["segmentation"], row["weight"], row["reasons"]) == (None, 0, ["no_evidence"]), name


def test_what_was_odd_about_an_image_or_a_sentence_is_recorded(run):
    flags = {}
    for stage in ("records", "relevance"):
        for shard in sorted((run[0] / stage / "shards").glob("?????.jsonl")):
            flags |= {row["id"]: row["flags"] for row in read_rows(shard)}
    assert {id for id, found in flags.items() if "text_truncated" in found} == {"text three hundred words"}
    assert flags["image lies.jpg"] == ["content:PNG"]
    assert flags["image cmyk.jpg"] == ["mode:CMYK"]
    assert flags["image turned.jpg"] == ["orientation:6"]
    assert "first_frame" in flags["image moving.gif"]
    assert "mode:P" in flags["image palette.png"]


def test_no_file_is_named_after_an_id_or_a_sentence_and_none_lies_outside(run):
    names = {path.name for path in run[0].rglob("*")}
    assert all(len(name) < 30 and name.isascii() and name.islower() for name in names), names
    assert {path.name for path in run[0].parent.iterdir()} == {"data", "run", "secret.png"}


def test_the_report_shows_html_in_sentences_as_text(run):
    page = (run[0] / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "<b>bold</b>" not in page
