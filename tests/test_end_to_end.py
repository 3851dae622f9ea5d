"""The embedded weights on a few demo images, from pairs to the report, by the command line."""

import json
import shutil
import sys

import pytest
from fixtures.pictures import read_rows, write_rows
from fixtures.processes import snapshot
from PIL import Image

from pipelines import cli
from ppt import rle
from ppt.types import PseudoLabel

IMAGES = 6
ODD_SIZES = {"dot.png": (1, 1), "thread.png": (700, 2)}
SMALLER = (
    "device=cpu", "shard_size=4", "generator.mosaics=6", "generator.steps=4",
    "generator.save_every=2", "segmenter.steps=4", "segmenter.batch=4", "segmenter.save_every=2",
)  # fmt: skip
STAGES = (
    "records", "relevance", "points", "masks", "labels", "segmenter", "predictions", "views", "quality",
    "evaluate",
)  # fmt: skip
SCORES = {"miou", "oiou", "pointm", *(f"prec@0.{tenths}" for tenths in range(5, 10))}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The first images of every split and source of the demo, and two of odd sizes, with their pairs."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "images").mkdir()
    rows = read_rows(cli.DEMO_DATA / "pairs.jsonl")
    groups = {}
    for row in rows:
        groups.setdefault((row["source"], row["split"]), {})[row["image"]] = None
    in_turn = zip(*groups.values(), strict=False)  # the first of each group, then the second ...
    chosen = [image for turn in in_turn for image in turn][:IMAGES]
    pairs = [row for row in rows if row["image"] in chosen]
    for image in chosen:
        shutil.copy(cli.DEMO_DATA / image, folder / image)
    for name, size in ODD_SIZES.items():
        Image.new("RGB", size, "green").save(folder / name)
        pairs.append({"id": name, "image": name, "text": "something green"})
    write_rows(folder / "pairs.jsonl", pairs)
    kept = {row["id"] for row in pairs}
    truth = [row for row in read_rows(cli.DEMO_DATA / "truth.jsonl") if row["id"] in kept]
    write_rows(folder / "truth.jsonl", truth)
    return folder


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """The folders of two runs of one command, and what the first one printed."""
    folders = [tmp_path_factory.mktemp(name) / "run" for name in ("first", "second")]
    files = ["--pairs", data / "pairs.jsonl", "--truth", data / "truth.jsonl"]
    with pytest.MonkeyPatch.context() as patch:
        for folder in folders:
            options = ["--output", folder, *(word for change in SMALLER for word in ("--set", change))]
            patch.setattr(sys, "argv", [*map(str, ["ppt", "run", "demo", *files, *options])])
            with pytest.raises(SystemExit, match="0"):
                cli.main()
            shutil.rmtree(folder / "points" / "training" / "tensorboard")  # holds times
    return folders


@pytest.fixture(scope="module")
def pairs(data):
    return {row["id"]: row for row in read_rows(data / "pairs.jsonl")}


def test_the_demo_data_has_what_this_test_is_about(data, pairs):
    assert len({row["image"] for row in pairs.values()}) == IMAGES + len(ODD_SIZES)
    assert {row.get("source") for row in pairs.values()} == {"object_centric", "referring", None}
    assert {row.get("split") for row in pairs.values()} == {"train", "val", "test", None}


def test_every_stage_leaves_its_files(runs):
    for stage in STAGES:
        for name in ("manifest.json", "config.yaml", "index.json", "failures.jsonl", "preview.png"):
            assert (runs[0] / stage / name).exists(), (stage, name)
        assert (runs[0] / stage / "failures.jsonl").read_bytes() == b""
        with Image.open(runs[0] / stage / "preview.png") as preview:
            assert preview.width > 100


def test_every_pair_has_a_valid_label(runs, data, pairs):
    found = read_rows(runs[0] / "labels" / "labels.jsonl")
    assert [row["id"] for row in found] == sorted(pairs)
    for row in found:
        label = PseudoLabel.from_json(row)
        assert (label.image, label.text) == (pairs[label.id]["image"], pairs[label.id]["text"])
        assert label.reasons
        if label.segmentation is not None:
            with Image.open(data / label.image) as image:
                assert (label.segmentation.width, label.segmentation.height) == image.size
            assert rle.area(label.segmentation) > 0
    assert any(row["segmentation"] is not None for row in found)


def test_the_metrics_are_those_of_the_contract(runs, pairs):
    metrics = json.loads((runs[0] / "evaluate" / "metrics.json").read_text())
    assert set(metrics["labels"]) == SCORES | {"n", "missing"}
    assert metrics["labels"]["n"] == len(pairs) - len(ODD_SIZES)
    assert all(0 <= metrics["labels"][score] <= 1 for score in SCORES)
    assert set(metrics["segmenter"]["all"]) == (SCORES | {"n", "missing"}) - {"pointm"}
    assert metrics["segmenter"]["all"]["n"] == len(pairs) - len(ODD_SIZES)
    for groups in ("by_split", "by_source"):
        assert sum(group["n"] for group in metrics[groups].values()) == metrics["labels"]["n"]
    assert {"resolution", "empty rule", "overlap rule", "sample unit"} <= set(metrics["conventions"])
    assert len(read_rows(runs[0] / "evaluate" / "per_sample.jsonl")) == metrics["labels"]["n"]


def test_the_report_holds_everything_itself(runs, pairs):
    page = (runs[0] / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/") >= IMAGES
    assert 'src="http' not in page
    assert all(row["text"] in page for row in pairs.values() if row["text"].isalpha())


def test_twice_gives_the_same_bytes(runs):
    first, second = map(snapshot, runs)
    assert {name for name, _ in first.items() ^ second.items()} == set()
    assert len(first) > 40
