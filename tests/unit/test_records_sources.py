"""Several data sets as one: where rows and images are, and what leaks from what is judged to what teaches."""

import json

import pytest
from fixtures import datasets
from fixtures.pictures import make_pictures

from ppt.config import ConfigError, load_config
from ppt.records import sources
from ppt.records.pairs import PairsError, Row
from ppt.settings import RecordsConfig
from ppt.types import Pair


def config(tmp_path, *found, **records):
    return RecordsConfig.model_validate({"sources": tuple(found), **records})


def source(format, path, **more):
    return {"format": format, "path": path, **more}


def test_images_are_found_from_the_folder_that_all_share(tmp_path):
    pictures = make_pictures(tmp_path / "own")
    refer = datasets.refer(tmp_path / "refer")
    found = sources.read(
        config(
            tmp_path,
            source("refer", refer),
            source("classes", datasets.photographs(tmp_path / "things" / "disc").parent),
            pairs=pictures / "pairs.jsonl",
            truth=pictures / "truth.jsonl",
        )
    )
    assert found.images == tmp_path
    places = {row.pair.image: row.where for row in found.rows}
    assert places["own/a.png"] == "line 2"
    assert places[f"refer/images/mscoco/images/train2014/{datasets.NAMES[2]}"] == (
        "source 2, refcoco ref 2, sentence 20"
    )
    assert places[f"things/disc/{datasets.NAMES[1]}"] == f"source 3, disc/{datasets.NAMES[1]}"
    assert all((tmp_path / image).is_file() for image in places)
    assert [where for where, _ in found.truth][:2] == ["source 2, refcoco ref 1, sentence 10"] * 1 + [
        "source 2, refcoco ref 1, sentence 11"
    ]
    assert len(found.truth) == 3 + len((pictures / "truth.jsonl").read_text().splitlines())
    assert [path.name for path in found.files] == ["pairs.jsonl", "refs(unc).p", "instances.json"]


def test_one_file_of_pairs_is_as_it_always_was(tmp_path):
    pictures = make_pictures(tmp_path / "own")
    found = sources.read(RecordsConfig(pairs=pictures / "pairs.jsonl"))
    assert found.images == pictures
    assert found.truth is None
    assert found.rows[0].pair.image == "a.png"


def test_a_path_that_leads_out_is_refused_though_a_folder_stands_before_it(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    row = {"image": "../a/x.png", "text": "left"}
    (tmp_path / "b/pairs.jsonl").write_text(json.dumps(row) + "\n" + json.dumps({**row, "image": "/x.png"}))
    (tmp_path / "a/pairs.jsonl").write_text(json.dumps({**row, "image": "x.png"}))
    both = [source("pairs", tmp_path / name / "pairs.jsonl") for name in ("a", "b")]
    found = sources.read(config(tmp_path, *both))
    assert [row.error for row in found.rows] == ["", "unsafe_path", "unsafe_path"]


def test_nothing_named_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"records\.pairs: name the file of pairs.*records\.sources"):
        sources.read(RecordsConfig())


def test_paths_of_sources_are_relative_to_their_file_and_no_part_of_what_made_an_artifact(tmp_path):
    (tmp_path / "run.yaml").write_text(
        "records: {sources: [{format: refer, path: data/refcoco, images: coco, by: umd}]}"
    )
    found = load_config(tmp_path / "run.yaml")
    assert found.records.sources[0].path == tmp_path / "data/refcoco"
    assert found.records.sources[0].images == tmp_path / "coco"
    (kept,) = found.sections("records")["records"]["sources"]
    assert kept == {
        "format": "refer", "by": "umd", "splits": [], "split": "train", "truth": True, "per_class": None,
        "template": "{}",
    }  # fmt: skip
    given = load_config(None, [f"records.sources=[{{format: cris, path: {tmp_path}}}]"])
    assert given.records.sources[0].path == tmp_path
    with pytest.raises(ConfigError, match=r"records\.sources\.0\.by2: unknown key"):
        load_config(None, ["records.sources=[{format: refer, path: x, by2: y}]"])
    with pytest.raises(ConfigError, match=r"records\.sources\.0\.format"):
        load_config(None, ["records.sources=[{format: lmdb, path: x}]"])


def row(where, image, split):
    return Row(where, where, split, "", "", Pair(where, image, "a cup", split))


def test_an_image_leaks_by_its_bytes_and_by_its_number():
    rows = [
        row("1", "train2014/COCO_train2014_000000000007.jpg", "train"),
        row("2", "train2017/000000000007.jpg", "val"),
        row("3", "a.png", "train"),
        row("4", "copy.png", "testA"),
        row("5", "b.png", ""),
        row("6", "b.png", "train"),
        row("7", "gone.png", "train"),
        row("8", "lost.png", "val"),
    ]
    contents = dict.fromkeys(one.pair.image for one in rows)
    contents |= {"a.png": "A", "copy.png": "A", "b.png": "B"}
    found = sources.leaks(rows, rows, contents, {"", "train"})
    assert found == {"train2014/COCO_train2014_000000000007.jpg": ["1"], "a.png": ["3"]}
    assert sources.leaks(rows, rows[:1], {}, {"train"}) == {rows[0].pair.image: ["1"]}  # 2 is not chosen
    kept = sources.without(rows, found)
    assert [one.where for one in kept if one.pair is None] == ["1", "3"]
    assert {one.error for one in kept if one.pair is None} == {"leak"}
    assert "a.png: it may teach" in kept[2].message


def test_an_own_source_can_be_of_some_splits(tmp_path):
    pictures = make_pictures(tmp_path / "own")
    chosen = source("pairs", pictures / "pairs.jsonl", splits=("val",))
    found = sources.read(config(tmp_path, chosen))
    assert {row.split for row in found.rows} == {"val"}
    with pytest.raises(PairsError, match="cannot be read"):
        sources.read(config(tmp_path, source("pairs", tmp_path / "no.jsonl")))
