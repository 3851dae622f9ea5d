"""Stage 4: labels.jsonl as the contract says, and weights and reasons from the masks alone."""

import json

import numpy as np
import pytest
from fixtures.pictures import HEIGHT, WIDTH, disc
from fixtures.processes import snapshot
from fixtures.walk import failures, rows, settings, walk
from pycocotools import mask as coco

from ppt import rle
from ppt.store import StaleArtifact

SCORES = {
    "predicted_iou",
    "stability",
    "agreement",
    "relevance",
    "contrast",
    "area",
    "peak",
    "sure",
    "rival",
    "edge",
}


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out"


def labels(output):
    lines = (output / "labels" / "labels.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_labels_jsonl_is_as_the_contract_says(models, pictures, output):
    summary = walk(settings(pictures), output, "labels")
    assert summary.line() == "labels: 7 items, 0 skipped; 2 shards made, 0 kept"
    found = labels(output)
    assert [row["id"] for row in found] == sorted(row["id"] for row in found)
    assert len(found) == 7
    records = rows(output, "records")
    for row in found:
        assert set(row) == {"id", "image", "text", "segmentation", "scores", "weight", "reasons", "of"}
        assert (row["image"], row["text"]) == (records[row["id"]]["image"], records[row["id"]]["text"])
        assert 0 <= row["weight"] <= 1
        assert all(isinstance(reason, str) for reason in row["reasons"])
        if row["segmentation"] is not None:
            assert set(row["scores"]) == SCORES
            assert set(row["segmentation"]) == {"size", "counts"}
            assert row["segmentation"]["size"] == [HEIGHT, WIDTH]
    assert (output / "labels" / "preview.png").stat().st_size > 1000


def test_the_masks_are_the_discs_and_pycocotools_reads_them_as_we_do(models, pictures, output):
    walk(settings(pictures), output, "labels")
    found = {row["id"]: row["segmentation"] for row in labels(output)}
    for id, where in (("a-left", "left"), ("a-right", "right"), ("b-middle", "middle"), ("copy", "left")):
        theirs = coco.decode({**found[id], "counts": found[id]["counts"].encode()}).astype(bool)
        np.testing.assert_array_equal(theirs, rle.decode(rle.from_json(found[id])))
        np.testing.assert_array_equal(theirs, disc(where))


def test_without_evidence_there_is_no_mask_no_weight_and_a_reason(models, pictures, output):
    walk(settings(pictures), output, "labels")
    [row] = [row for row in labels(output) if row["id"] == "nothing"]
    assert (row["segmentation"], row["weight"], row["reasons"]) == (None, 0, ["no_evidence"])
    assert row["scores"] == {"peak": 0, "sure": 0}


def test_an_excluded_label_keeps_its_mask_and_says_why(models, pictures, output):
    config = settings(pictures)
    walk(config, output, "labels")
    assert all(row["weight"] > 0.5 for row in labels(output) if row["segmentation"])
    strict = settings(pictures, "labels.min_stability=0.95")
    walk(strict, output, "labels", first="labels", fresh=True)
    for row in labels(output):
        if row["segmentation"]:
            assert row["weight"] == 0
            assert row["reasons"][-1] == "excluded:stability 0.90 < 0.95"


def test_sentences_that_got_one_mask_are_remarked_on_within_their_image_only(models, pictures, output):
    pairs = (pictures / "pairs.jsonl").read_text()
    more = {"id": "again", "image": "a.png", "text": "something red"}
    (pictures / "pairs.jsonl").write_text(pairs + json.dumps(more) + "\n")
    walk(settings(pictures), output, "labels")
    reasons = {row["id"]: row["reasons"] for row in labels(output)}
    assert "same_mask_as:again" in reasons["a-left"]
    assert "same_mask_as:a-left" in reasons["again"]
    assert not [
        r for id in ("a-right", "b-left", "b-middle") for r in reasons[id] if r.startswith("same_mask")
    ]


def test_images_may_be_gone_by_now(models, pictures, output):
    config = settings(pictures)
    walk(config, output, "masks")
    for path in pictures.glob("*.png"):
        path.unlink()
    summary = walk(config, output, "labels", first="labels")
    assert (summary.items, failures(output, "labels")) == (7, {})


def test_again_is_nothing_to_do_and_other_thresholds_are_stale(models, pictures, output):
    walk(settings(pictures), output, "labels")
    before = snapshot(output)
    assert walk(settings(pictures), output, "labels").made == 0
    assert snapshot(output) == before
    with pytest.raises(StaleArtifact, match=r"labels\.min_agreement: 0\.1 -> 0\.2"):
        walk(settings(pictures, "labels.min_agreement=0.2"), output, "labels")


def test_a_lost_labels_file_comes_back(models, pictures, output):
    walk(settings(pictures), output, "labels")
    before = snapshot(output)
    (output / "labels" / "labels.jsonl").unlink()
    assert walk(settings(pictures), output, "labels", first="labels").made == 0
    assert snapshot(output) == before
