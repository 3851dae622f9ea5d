"""Stage 0: rows, failures, shards, the locked room, and what happens when something changes."""

import json

import numpy as np
import pytest
from PIL import Image

from pipelines import s0_records
from ppt import rle
from ppt.config import Config, ConfigError
from ppt.records.pairs import PairsError, derived_id
from ppt.settings import RecordsConfig
from ppt.store import Artifact, StaleArtifact
from ppt.types import Record


@pytest.fixture
def data(tmp_path):
    """Three pictures of two contents, one that is broken, and pairs of every sort."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name, colour in (("red.png", "red"), ("copy.jpg", "red"), ("blue.png", "blue")):
        Image.new("RGB", (8, 6), colour).save(folder / name, format="PNG")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    rows = [
        {"id": "a", "image": "red.png", "text": "the red one", "split": "train", "kind": "colour"},
        {"id": "b", "image": "blue.png", "text": "the blue one", "split": "val"},
        {"id": "c", "image": "broken.jpg", "text": "the noise", "split": "val"},
        {"id": "d", "image": "gone.jpg", "text": "nobody", "split": "train"},
        {"id": "e", "image": "copy.jpg", "text": "the same", "split": "val", "source": "object_centric"},
        {"id": "f", "image": "red.png", "text": "...", "split": "val"},
        {"id": "a", "image": "blue.png", "text": "again", "split": "train"},
        {"image": "blue.png", "text": "another sentence", "split": "train"},
    ]
    lines = [*map(json.dumps, rows), '{"broken": ']
    (folder / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def config(folder, workers=0, shard_size=32, **records):
    own = RecordsConfig(**{"pairs": folder / "pairs.jsonl", **records})
    return Config(records=own, workers=workers, shard_size=shard_size)


def with_truth(folder, *rows):
    mask = rle.encode(np.eye(6, 8, dtype=bool)).to_json()
    given = rows or [{"id": id, "segmentation": mask} for id in "fcab"]
    (folder / "truth.jsonl").write_text("\n".join(map(json.dumps, given)))
    return folder / "truth.jsonl"


def tree(folder):
    """Every file under `folder` by name, but for the lock and the note of where the pairs lie."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (".lock", "source.json")
    }


def records(output):
    return [Record.from_json(row) for row in Artifact.open(output / "records").rows()]


def test_good_pairs_become_records_and_the_rest_failures(data, tmp_path):
    summary = s0_records.run(config(data), tmp_path / "out")
    found = {record.pair.id: record for record in records(tmp_path / "out")}
    other = derived_id("blue.png", "another sentence")
    assert set(found) == {"a", "b", "e", other}
    assert (found["a"].height, found["a"].width, found["a"].flags) == (6, 8, ())
    assert found["e"].flags == ("content:PNG",)
    assert found["e"].sha256 == found["a"].sha256 != found["b"].sha256
    assert found["e"].pair.source == "object_centric"
    failures = Artifact.open(tmp_path / "out" / "records").failures()
    assert [(f.stage, f.id, f.error) for f in failures] == [
        ("records", "f", "empty_text"),
        ("records", "line 7", "duplicate_id"),
        ("records", "line 9", "bad_json"),
        ("records", "c", "bad_image"),
        ("records", "d", "missing"),
    ]
    assert (summary.items, summary.skipped) == (4, 5)
    reasons = {"bad_image": 1, "bad_json": 1, "duplicate_id": 1, "empty_text": 1, "missing": 1}
    assert summary.reasons == reasons
    assert (tmp_path / "out" / "records" / "preview.png").exists()


def test_rows_are_flat_as_in_the_specification(data, tmp_path):
    s0_records.run(config(data), tmp_path / "out")
    row = next(Artifact.open(tmp_path / "out" / "records").rows())
    assert list(row) == sorted(
        ["id", "image", "text", "split", "source", "kind", "sha256", "height", "width", "flags"]
    )
    assert row["image"] == "red.png"


def test_every_image_is_decoded_once_and_a_shard_holds_so_many_contents(data, tmp_path, monkeypatch):
    opened = []
    real = s0_records.images.load
    monkeypatch.setattr(s0_records, "_preview", lambda *_: None)
    monkeypatch.setattr(s0_records.images, "load", lambda *args: opened.append(args[1]) or real(*args))
    s0_records.run(config(data, shard_size=1), tmp_path / "out")
    assert opened == ["red.png", "blue.png", "broken.jpg", "gone.jpg"]
    artifact = Artifact.open(tmp_path / "out" / "records")
    assert [artifact.items(key) for key in artifact.keys] == [
        ("a", "e"),
        ("b", derived_id("blue.png", "another sentence")),
        ("c",),
        ("d", "f", "line 7", "line 9"),
    ]


def test_split_then_limit(data, tmp_path):
    s0_records.run(config(data, splits=("val",), limit=2), tmp_path / "out")
    assert [record.pair.id for record in records(tmp_path / "out")] == ["b"]
    assert [f.id for f in Artifact.open(tmp_path / "out" / "records").failures()] == ["c"]


def test_the_same_bytes_again_elsewhere_and_with_workers(data, tmp_path):
    s0_records.run(config(data, shard_size=1, truth=with_truth(data)), tmp_path / "one")
    moved = tmp_path / "moved"
    data.rename(moved)
    settings = config(moved, workers=2, shard_size=1, truth=moved / "truth.jsonl")
    s0_records.run(settings, tmp_path / "two")
    before = tree(tmp_path / "two")
    assert before == tree(tmp_path / "one")
    again = s0_records.run(settings, tmp_path / "two")
    assert again.made == 0
    assert tree(tmp_path / "two") == before


def test_truth_is_kept_apart_and_changes_nothing_in_records(data, tmp_path):
    s0_records.run(config(data), tmp_path / "without")
    s0_records.run(config(data, truth=with_truth(data)), tmp_path / "with")
    assert tree(tmp_path / "without" / "records") == tree(tmp_path / "with" / "records")
    assert not (tmp_path / "without" / "truth").exists()


def test_truth_holds_every_pair_of_the_run_even_the_lost_ones(data, tmp_path):
    summary = s0_records.run(config(data, truth=with_truth(data)), tmp_path / "out")
    lines = (tmp_path / "out" / "truth" / "truth.jsonl").read_text().splitlines()
    rows = {row["id"]: row for row in map(json.loads, lines)}
    assert list(rows) == ["a", "b", "c", "f"]
    assert (rows["a"]["split"], rows["a"]["kind"]) == ("train", "colour")
    assert (rows["f"]["split"], rows["f"]["source"]) == ("val", "referring")
    assert summary.skipped == 5


def test_truth_follows_the_split_and_bad_masks_are_told(data, tmp_path):
    wrong = rle.encode(np.ones((3, 3), bool)).to_json()
    good = rle.encode(np.ones((6, 8), bool)).to_json()
    truth = with_truth(
        data,
        {"id": "b", "segmentation": good},
        {"id": "e", "segmentation": wrong},
        {"id": "a", "segmentation": wrong},
        {"id": "zebra", "segmentation": good},
    )
    summary = s0_records.run(config(data, truth=truth, splits=("val",)), tmp_path / "out")
    artifact = Artifact.open(tmp_path / "out" / "truth")
    assert [row["id"] for row in artifact.rows()] == ["b"]
    assert [(f.id, f.error) for f in artifact.failures()] == [
        ("line 2", "bad_mask"),
        ("line 4", "unknown_id"),
    ]
    assert summary.reasons["truth:bad_mask"] == summary.reasons["truth:unknown_id"] == 1


def test_a_changed_image_or_pairs_file_is_taken_in(data, tmp_path):
    s0_records.run(config(data, shard_size=1), tmp_path / "out")
    Image.new("RGB", (8, 6), "green").save(data / "blue.png")
    summary = s0_records.run(config(data, shard_size=1), tmp_path / "out")
    assert (summary.made, summary.kept, summary.note) == (1, 3, "images changed: 1 (blue.png)")
    with pytest.raises(StaleArtifact, match=r"records\.exif: 'ignore' -> 'transpose'"):
        s0_records.run(config(data, exif="transpose"), tmp_path / "out")
    with open(data / "pairs.jsonl", "a", encoding="utf-8") as file:
        file.write('\n{"id": "g", "image": "blue.png", "text": "now green"}\n')
    summary = s0_records.run(config(data, shard_size=1), tmp_path / "out")
    assert (summary.made, summary.kept, summary.note) == (1, 3, "pairs added: 1")
    assert "g" in {record.pair.id for record in records(tmp_path / "out")}


def test_errors_before_any_work(data, tmp_path):
    with pytest.raises(ConfigError, match=r"records\.pairs: name the file"):
        s0_records.run(Config(), tmp_path / "out")
    *good, _ = (data / "pairs.jsonl").read_text().splitlines()
    (data / "pairs.jsonl").write_text("\n".join(good))
    with pytest.raises(PairsError, match=r"no row is of records\.splits .*'test'.*'train', 'val'"):
        s0_records.run(config(data, splits=("test",)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_where_everything_fails_the_artifact_is_empty_and_whole(data, tmp_path):
    for path in data.glob("*.[pj][np]g"):
        path.unlink()
    summary = s0_records.run(config(data), tmp_path / "out")
    assert (summary.items, records(tmp_path / "out")) == (0, [])
    assert Artifact.open(tmp_path / "out" / "records").verify() == []
