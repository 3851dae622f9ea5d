"""JSON of published data sets that is not as it should be: refused with the place, or row by row."""

import json
import os
import subprocess
import sys

import pytest
from fixtures import datasets
from fixtures.pictures import HEIGHT, WIDTH
from fixtures.processes import ENVIRONMENT
from PIL import Image

from ppt.records import dataset, pairs
from ppt.records import truth as truths
from ppt.records.pairs import PairsError
from ppt.records.sources import READERS
from ppt.settings import RecordsConfig, SourceConfig

HUGE = 2**63 + 1


def read(format, path, **source):
    return READERS[format](SourceConfig(format=format, path=path, **source), RecordsConfig())


def changed(tmp_path, change):
    """REFER's layout, whose instances.json is changed: the folder."""
    folder = datasets.refer(tmp_path)
    found = json.loads((folder / "instances.json").read_text())
    change(found)
    (folder / "instances.json").write_text(json.dumps(found))
    return folder


def judged(folder):
    """(ids of true masks, message of every mask that is refused)."""
    found = read("refer", folder)
    sizes = {row.id: (HEIGHT, WIDTH) for row in pairs.checked(found.pairs) if row.pair is not None}
    true, refused = truths.checked(found.truth, sizes)
    return [one.id for one in true], [one.message for one in refused]


WHOLE = (["refcoco-10", "refcoco-11", "refcoco-20"], [])


# --- files that break the rules of JSON


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'[{"id": 1,\n  "id": 2}]', "line 1: key 'id' appears twice"),
        (b'[\n{"a": 1},\n\n{"b": {"c": 1, "c": 2}}]', "line 4: key 'c' appears twice"),
        (b'[\n{"score": NaN}]', "line 2: NaN is not JSON"),
        (b"[1, -Infinity]", "line 1: -Infinity is not JSON"),
        (b"\xef\xbb\xbf[]", "begins with a byte order mark"),
        (b'[{"a": "caf\xe9"}]', "byte 12 is not UTF-8"),
        (b"[" * 200_000, "nested too deeply"),
        (b'[{"a": 1}\n{"b": 2}]', "line 2 column 1"),
        (b"[1" + b"0" * 5000 + b"]", "not JSON"),
        (b" \n ", "is empty"),
        (b'{"a": 1}', "expected a list of objects"),
    ],
)
def test_a_file_that_is_not_json_is_refused_with_the_place(tmp_path, content, told):
    folder = datasets.refer(tmp_path)
    (folder / "refs(unc).p").unlink()
    (folder / "refs(unc).json").write_bytes(content)
    with pytest.raises(PairsError) as caught:
        read("refer", folder)
    assert "refs(unc).json" in str(caught.value)
    assert told in str(caught.value)


def test_pipes_and_files_beyond_the_cap_are_not_opened(tmp_path, monkeypatch):
    folder = datasets.refer(tmp_path)
    (folder / "refs(unc).p").unlink()
    path = datasets.captions(tmp_path / "captions")
    monkeypatch.setattr(dataset, "MAX_BYTES", 100)
    with pytest.raises(PairsError, match=r"bytes; at most 100 are read"):
        read("coco_captions", path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(PairsError, match="is not a regular file"):
        read("coco_captions", path)


def test_a_mask_that_is_a_pipe_or_a_link_to_elsewhere_is_refused(tmp_path):
    folder = datasets.cris(tmp_path / "set")
    mask = tmp_path / "set" / "masks" / "refcoco" / "7.png"
    sizes = {"refcoco-3": (HEIGHT, WIDTH)}
    mask.unlink()
    os.mkfifo(mask)
    assert "is not a regular file" in truths.checked(read("cris", folder).truth, sizes)[1][0].message
    mask.unlink()
    Image.new("L", (WIDTH, HEIGHT), 255).save(tmp_path / "elsewhere.png")
    mask.symlink_to(tmp_path / "elsewhere.png")
    assert "leads out of its folder" in truths.checked(read("cris", folder).truth, sizes)[1][0].message


# --- ids and references


def test_ids_of_rows_that_differ_are_refused_by_name_and_rows_given_twice_are_not(tmp_path):
    def again(found):
        found["images"].append(dict(found["images"][0]))
        found["annotations"].append(dict(found["annotations"][0]))

    assert judged(changed(tmp_path / "same", again)) == WHOLE

    def other(found):
        found["annotations"].append(found["annotations"][0] | {"segmentation": []})

    with pytest.raises(PairsError, match=r"instances\.json: 1 ids are those of rows that differ: 11"):
        read("refer", changed(tmp_path / "other", other))

    def many(found):
        found["images"] += [{"id": n, "file_name": f"{n}-{k}.jpg"} for n in range(100, 120) for k in (1, 2)]

    with pytest.raises(PairsError, match=r"20 ids .* differ: 100, 101, 102, 103, 104$"):
        read("refer", changed(tmp_path / "many", many))


def renumbered(found, number):
    """Image 1, and what is said of it, by another number."""
    found["images"][0]["id"] = number
    for one in found["annotations"]:
        one["image_id"] = number if one["image_id"] == 1 else one["image_id"]


@pytest.mark.parametrize("number", ["1", HUGE, -7])
def test_ids_may_be_text_or_of_any_size_as_long_as_they_are_the_same(tmp_path, number):
    folder = changed(tmp_path, lambda found: renumbered(found, number))
    (folder / "refs(unc).p").unlink()
    refs = [one | {"image_id": number if one["image_id"] == 1 else one["image_id"]} for one in datasets.REFS]
    (folder / "refs(unc).json").write_text(json.dumps(refs))
    assert judged(folder) == WHOLE


@pytest.mark.parametrize("number", ["1", HUGE, True, None, 1.5, [1]])
def test_an_image_that_is_not_listed_costs_its_own_rows(tmp_path, number):
    folder = changed(tmp_path, lambda found: found["images"][0].update(id=number))
    rows = pairs.checked(read("refer", folder).pairs)
    assert {row.error for row in rows} == {"", "bad_ref"}
    assert all("knows no image 1" in row.message for row in rows if row.error)
    assert judged(folder)[0] == ["refcoco-20"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "garbage~"}}, "RLE counts"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": []}}, "sum to 0"),
        ({"segmentation": {"size": [10**6, 10**6], "counts": "0"}}, "1..65535"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [-1, HEIGHT * WIDTH + 1]}}, "got -1"),
        ({"segmentation": [[0, 0, 1e308, 0, 4, 4]]}, "coordinate 1e+308"),
        ({"segmentation": None}, "got NoneType"),
        ({"image_id": 99}, "height and width, got None"),
    ],
)
def test_a_mask_that_is_none_costs_its_own_rows(tmp_path, change, told):
    folder = changed(tmp_path, lambda found: found["annotations"][0].update(change))
    true, refused = judged(folder)
    assert true == ["refcoco-20"]
    assert len(refused) == 2
    assert all(told in message for message in refused)


@pytest.mark.parametrize("size", [{}, {"height": None}, {"height": 0}, {"height": "9"}, {"width": 10**9}])
def test_an_image_without_a_size_costs_the_masks_that_need_it(tmp_path, size):
    def unsized(found):
        found["images"][0] = {
            k: v for k, v in found["images"][0].items() if k not in ("height", "width")
        } | size

    true, refused = judged(changed(tmp_path, unsized))
    assert true == ["refcoco-20"]
    assert len(refused) == 2


def test_a_crowd_and_a_category_of_nothing_are_read(tmp_path):
    def crowd(found):
        for one in found["annotations"]:
            one.update(iscrowd=1, category_id=None, score=1e308)
        found["categories"] = []

    assert judged(changed(tmp_path, crowd)) == WHOLE


SIZE = """
import json, re, sys
from pathlib import Path
from ppt.records.dataset import by_id, json_file, rows_of
def peak():  # of this program; getrusage knows that of the one before it in the process, too
    return int(re.search(r"VmHWM:\\s+([0-9]+)", Path("/proc/self/status").read_text())[1])

before = peak()
found = json_file(Path(sys.argv[1]), "annotations")
assert len(by_id(rows_of(found, "annotations", Path(sys.argv[1])), Path(sys.argv[1]))) == 60_000
print((peak() - before) * 1024 / Path(sys.argv[1]).stat().st_size)
"""


def test_a_large_file_takes_some_times_its_size_of_memory(tmp_path):
    polygon = [[float(n) + 0.25 for n in range(40)]]
    rows = [{"id": n, "image_id": n, "segmentation": polygon, "iscrowd": 0} for n in range(60_000)]
    (tmp_path / "instances.json").write_text(json.dumps({"annotations": rows}))
    ended = subprocess.run(
        [sys.executable, "-c", SIZE, tmp_path / "instances.json"],
        env=ENVIRONMENT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert 1 < float(ended.stdout) < 10
