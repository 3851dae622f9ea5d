"""What an export leaves on the disk: the same bytes each time, images that are those labelled, and nothing of
anybody else's gone.
"""

import json
import os
import pickle
import re
import tarfile
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from fixtures.exports import HOSTILE, cvat, exported, label_studio, labelled
from fixtures.pictures import HEIGHT, WIDTH, disc
from fixtures.processes import snapshot
from PIL import Image

from ppt import rle
from ppt.exports import formats, place, webdataset
from ppt.exports.card import About, Model, card
from ppt.exports.items import ExportError, Labelled, Tally, Wishes
from ppt.exports.streams import PickledList

EVERY = sorted(formats.FORMATS)


def hostile(root):
    """Items whose ids, sentences, splits and paths are what a person would not choose."""
    return [
        labelled(root, HOSTILE, "a.png", text=HOSTILE, split=HOSTILE),
        labelled(root, HOSTILE.upper(), "a.png", "left", split=""),
        labelled(root, "CON", "one/x.png", "middle", text="]]>&amp; | --- \r\n\t`#`"),
        labelled(root, "con", "two/X.png", "right", split="val"),
        labelled(root, "i" * 900, "two/x.png", "right", split="val"),
        labelled(root, "sélf/é", "two/é\u0301 🦊.png", "left", split="val"),
    ]


@pytest.mark.parametrize("name", EVERY)
def test_the_same_items_are_the_same_bytes_under_names_that_any_disk_takes(name, tmp_path):
    items = hostile(tmp_path / "in")
    for place_ in ("here", "there"):
        exported(tmp_path / place_, tmp_path / "in", name, items)
    made = snapshot(tmp_path / "here")
    assert made == snapshot(tmp_path / "there")
    exported(tmp_path / "here", tmp_path / "in", name, items)
    assert made == snapshot(tmp_path / "here"), "an earlier export gives way"
    files = [
        path.relative_to(tmp_path / "here").as_posix()
        for path in (tmp_path / "here").rglob("*")
        if path.is_file()
    ]
    assert len({file.lower() for file in files}) == len(files) > 2
    assert all(len(part) < 100 for file in files for part in file.split("/"))
    assert not [file for file in files if not re.fullmatch(r"[A-Za-z0-9_/.()-]+", file)]
    assert sorted(os.listdir(tmp_path)) == ["here", "in", "there"], "nothing beside it is left"


def test_hostile_text_comes_back_as_it_was(tmp_path):
    items = hostile(tmp_path / "in")
    tally = exported(tmp_path / "cvat", tmp_path / "in", "cvat", items)
    assert any("control characters" in note for note in tally.notes)
    assert len(cvat(tmp_path / "cvat")) == len(items)
    exported(tmp_path / "tasks", tmp_path / "in", "label-studio", items, url_prefix="/data/local-files/?d=p/")
    assert set(label_studio(tmp_path / "tasks")) == {item.id for item in items}
    tasks = json.loads((tmp_path / "tasks/tasks.json").read_text(encoding="utf-8"))
    assert {task["data"]["text"] for task in tasks} == {item.text for item in items}
    assert {task["data"]["image"] for task in tasks} >= {
        "/data/local-files/?d=p/two/%C3%A9%CC%81%20%F0%9F%A6%8A.png"
    }


# --- images


def test_images_are_copied_or_linked_or_stay(tmp_path):
    root, items = tmp_path / "in", [labelled(tmp_path / "in", "1", "sub/a.png")]
    content = (root / "sub/a.png").read_bytes()
    for way in ("copy", "hardlink", "symlink"):
        exported(tmp_path / way, root, "yolo", items, way=way)
        [image] = (tmp_path / way / "images/train").iterdir()
        assert image.read_bytes() == content
        assert image.is_symlink() == (way == "symlink")
        assert (image.stat().st_ino == (root / "sub/a.png").stat().st_ino) == (way != "copy")
    assert not os.readlink(image).startswith("/")
    exported(tmp_path / "none", root, "coco", items)
    assert not (tmp_path / "none/images").exists()
    [row] = json.loads((tmp_path / "none/annotations/instances_train.json").read_text())["images"]
    assert row["file_name"] == "sub/a.png"
    exported(tmp_path / "with", root, "coco", items, way="copy")
    [row] = json.loads((tmp_path / "with/annotations/instances_train.json").read_text())["images"]
    assert (tmp_path / "with" / row["file_name"]).read_bytes() == content


@pytest.mark.parametrize("name", ["yolo", "webdataset"])
def test_an_image_that_is_gone_or_another_is_left_out_and_counted(name, tmp_path):
    items = [labelled(tmp_path / "in", id, f"{id}.png") for id in ("good", "gone", "changed")]
    (tmp_path / "in/gone.png").unlink()
    (tmp_path / "in/changed.png").write_bytes(b"other")
    tally = exported(tmp_path / "out", tmp_path / "in", name, items)
    assert tally.left == {"image missing": 1, "image changed": 1}
    assert (tally.faults, tally.masks) == (2, {"train": 1})


def test_an_image_within_a_tar_is_copied_out_of_it(tmp_path):
    item = labelled(tmp_path / "in", "1", "a.png")
    with tarfile.open(tmp_path / "in/t.tar", "w") as tar:
        tar.add(tmp_path / "in/a.png", "sub/a.png")
    content = (tmp_path / "in/a.png").read_bytes()
    inside = labelled(tmp_path / "in", "2", "a.png")
    record = inside.record
    moved = type(record.pair)("2", "t.tar/sub/a.png", "it", "train")
    inside = type(inside)(type(record)(moved, record.sha256, HEIGHT, WIDTH), inside.mask, 0.5, "keep")
    tally = exported(tmp_path / "out", tmp_path / "in", "yolo", [item, inside], way="symlink")
    assert tally.notes["images lie in a tar, and were copied"] == 1
    images = sorted((tmp_path / "out/images/train").iterdir())
    assert [path.read_bytes() for path in images] == [content, content]
    assert sorted(path.is_symlink() for path in images) == [False, True]


def test_an_image_that_programs_turn_is_written_as_it_was_labelled(tmp_path):
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:, : WIDTH // 2] = 200
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels).save(tmp_path / "in/t.png", exif=exif)
    item = labelled(tmp_path / "in", "1", "t.png", flags=("orientation:6",))
    exported(tmp_path / "out", tmp_path / "in", "fiftyone", [item], way="symlink")
    [image] = (tmp_path / "out/train/data").iterdir()
    with Image.open(image) as opened:
        assert not opened.getexif()
        assert np.array_equal(np.asarray(opened), pixels)
    lying = labelled(tmp_path / "in", "2", "t.jpg", flags=("content:PNG",))
    exported(tmp_path / "lying", tmp_path / "in", "yolo", [lying])
    assert [path.suffix for path in (tmp_path / "lying/images/train").iterdir()] == [".png"]


# --- the folder


def test_nothing_but_an_export_gives_way(tmp_path):
    items = [labelled(tmp_path / "in", "1", "a.png")]
    (tmp_path / "mine").mkdir()
    exported(tmp_path / "mine", tmp_path / "in", "png", items)  # an empty folder may be one
    (tmp_path / "mine/masks/notes.txt").write_text("by hand")
    before = snapshot(tmp_path / "mine")
    with pytest.raises(ExportError, match=r"holds 'masks/notes.txt', which no export wrote"):
        exported(tmp_path / "mine", tmp_path / "in", "png", items)
    with pytest.raises(ExportError, match=r"not empty and no export \(holds 'a.png'\)"):
        exported(tmp_path / "in", tmp_path / "in", "png", items)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ExportError, match="is a file, expected a folder"):
        exported(tmp_path / "file", tmp_path / "in", "png", items)
    assert snapshot(tmp_path / "mine") == before
    assert sorted(os.listdir(tmp_path)) == ["file", "in", "mine"]


def test_an_export_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    items = [labelled(tmp_path / "in", "1", "a.png")]
    exported(tmp_path / "out", tmp_path / "in", "png", items)
    before = snapshot(tmp_path / "out")
    monkeypatch.setattr(formats.png, "encoded", lambda _: json.loads("no mask"))
    with pytest.raises(ValueError, match="Expecting value"):
        exported(tmp_path / "out", tmp_path / "in", "png", items)
    monkeypatch.undo()
    assert sorted(os.listdir(tmp_path)) == ["in", "out"]
    assert snapshot(tmp_path / "out") == before
    (tmp_path / ".out.exporting/sub").mkdir(parents=True)  # as one that was killed leaves it
    (tmp_path / ".out.exporting/sub/half").write_text("x")
    exported(tmp_path / "out", tmp_path / "in", "png", items)
    assert snapshot(tmp_path / "out") == before
    assert sorted(os.listdir(tmp_path)) == ["in", "out"]


def test_two_exports_to_one_folder_do_not_meet(tmp_path):
    with (
        place.replacing(tmp_path / "out"),
        pytest.raises(ExportError, match="another export is writing here"),
    ):
        exported(tmp_path / "out", tmp_path, "png", [])


# --- formats


@pytest.mark.parametrize(
    ("name", "way", "wishes", "said"),
    [
        ("voc", None, {}, "--format: expected one of coco, coco-results, png"),
        ("png", None, {"polygons": True}, "--polygons is for coco, not png"),
        ("coco", None, {"url_prefix": "/x"}, "--url-prefix is for label-studio, not coco"),
        ("yolo", "none", {}, "yolo needs its images beside it"),
        ("webdataset", "symlink", {}, "a tar holds copies"),
        ("coco", None, {"category": " "}, "--category must be a word, got ' '"),
    ],
)
def test_what_a_format_cannot_do_is_refused(name, way, wishes, said):
    with pytest.raises(ExportError) as error:
        formats.named(name, Wishes(**wishes), way)
    assert said in str(error.value)


def test_tars_are_closed_before_they_are_too_large_and_have_no_owner(tmp_path, monkeypatch):
    items = [labelled(tmp_path / "in", f"{n}", "a.png") for n in range(6)]
    monkeypatch.setattr(
        formats, "FORMATS", {"webdataset": formats.Format(lambda *job: webdataset.write(*job, 20_000), "")}
    )
    exported(tmp_path / "out", tmp_path / "in", "webdataset", items)
    tars = sorted((tmp_path / "out").glob("*.tar"))
    assert [path.name for path in tars] == [f"train-{n:06d}.tar" for n in range(len(tars))]
    assert len(tars) > 1
    keys = []
    for path in tars:
        with tarfile.open(path) as tar:
            for member in tar:
                assert (member.uid, member.gid, member.uname, member.mtime, member.mode) == (
                    0,
                    0,
                    "",
                    0,
                    0o644,
                )
                keys.append(member.name)
    assert len(set(keys)) == len(keys) == 24


def test_a_pickled_list_is_plain_and_its_bytes_do_not_depend_on_which_texts_are_one_object(tmp_path):
    same, apart = "a sentence", "".join(["a ", "sentence"])
    for name, second in (("one", same), ("two", apart)):
        with PickledList(tmp_path / name) as rows:
            rows.add({"text": same, "again": [second, 2**52, 0.5]})
            rows.add({"text": second})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    found = pickle.loads((tmp_path / "one").read_bytes())
    assert found == [{"text": same, "again": [same, 2**52, 0.5]}, {"text": same}]


def test_of_equal_masks_yolo_has_one_line_and_an_image_without_has_an_empty_file(tmp_path):
    items = [
        labelled(tmp_path / "in", "1", "a.png"),
        labelled(tmp_path / "in", "2", "a.png"),
        labelled(tmp_path / "in", "3", "a.png", mask=rle.encode(disc("right"))),
        labelled(tmp_path / "in", "4", "b.png", band="drop"),
    ]
    tally = exported(tmp_path / "out", tmp_path / "in", "yolo", items)
    sizes = sorted(len(path.read_text().splitlines()) for path in (tmp_path / "out/labels/train").iterdir())
    assert sizes == [0, 2]
    assert tally.polygons == [1.0, 1.0]
    assert sum("one line" in note for note in tally.notes) == 1
    assert sum("empty label file" in note for note in tally.notes) == 1
    assert any("split named val" in note for note in tally.notes)


@pytest.mark.parametrize("name", EVERY)
def test_masks_are_not_kept_in_memory_while_more_are_written(name, tmp_path):
    mask = np.zeros((1000, 1000), bool)
    mask[100:900, 200:800] = True
    record = labelled(tmp_path / "in", "0", "a.png").record

    def peak(count):
        items = [
            Labelled(
                replace(record, pair=replace(record.pair, id=str(n)), height=1000, width=1000),
                packed,
                1.0,
                "keep",
            )
            for n in range(count)
            for packed in [rle.encode(mask ^ (np.arange(1000) == n))]
        ]
        tracemalloc.start()
        exported(tmp_path / "out", tmp_path / "in", name, items)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(1)  # what is imported and cached at first
    few, many = peak(2), peak(8)
    assert (few > 900_000) == (name not in ("coco", "coco-results", "fiftyone")), "those decode none"
    assert many < few + 1_000_000, "a mask of 1 MB more was kept"


# --- the card


def test_the_card_says_what_made_the_masks_and_stays_in_its_lines():
    tally = Tally()
    tally.masks["train"], tally.images["train"] = 1200, 3
    tally.bands["train", "keep"], tally.scores[9] = 1200, 1200
    tally.leave("band drop|\n# x", 7)
    tally.polygons = [1.0, 0.5]
    about = About(
        "imagefolder",
        "labels",
        "all",
        "cc-by-4.0",
        (Model("draws", "a|b", "MIT", "0" * 64),),
        {"train": "train/**"},
    )
    text = card(about, tally)
    assert text.startswith("---\nlicense: cc-by-4.0\n")
    assert "- 1K<n<10K\n" in text
    assert "    path: train/**\n" in text
    assert "| draws | a\\|b | MIT | 0000000000000000 |" in text
    assert "| train | 3 | 1200 | 1200 |" in text
    assert "- 7 left out: band drop\\| # x\n" in text
    assert "no person drew or checked one" in text
    assert "IoU mean 0.7500, median 0.7500, worst 0.5000; 50.0% below 0.98" in text
