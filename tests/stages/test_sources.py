"""Published layouts through the stages: REFER and captions end to end, what leaks, and `ppt data check`."""

import json
import shutil

import numpy as np
import pytest
from fixtures import datasets
from fixtures.walk import walk
from pycocotools.coco import COCO

from pipelines import s0_records
from pipelines.data import check
from ppt import rle
from ppt.config import load_config
from ppt.records.pairs import PairsError
from ppt.store import Artifact


def settings(*sources, **records):
    own = {"sources": list(sources), **records}
    return load_config(None, ["shard_size=2", "relevance.redundancy=none", f"records={json.dumps(own)}"])


def refer(tmp_path, **more):
    return {"format": "refer", "path": str(datasets.refer(tmp_path / "refer")), **more}


def test_refer_goes_all_the_way_and_is_judged_by_cocos_own_masks(models, tmp_path):
    source, output = refer(tmp_path), tmp_path / "out"
    found = walk(settings(source), output, "evaluate")
    assert found.items == 3
    coco = COCO(tmp_path / "refer/refcoco/instances.json")
    rows = {row["id"]: row for row in Artifact.open(output / "truth").rows()}
    for id, annotation in (("refcoco-10", 11), ("refcoco-20", 22)):
        mask = rle.decode(rle.from_json(rows[id]["segmentation"]))
        assert np.array_equal(mask, coco.annToMask(coco.anns[annotation]).astype(bool))
    assert [rows[id]["ref"] for id in sorted(rows)] == ["refcoco ref 1", "refcoco ref 1", "refcoco ref 2"]


def test_without_truth_the_labels_are_the_same_bytes(models, tmp_path):
    source = refer(tmp_path)
    walk(settings(source), tmp_path / "with", "labels")
    walk(settings({**source, "truth": False}), tmp_path / "without", "labels")
    assert not (tmp_path / "without/truth").exists()
    labels = [(tmp_path / name / "labels/labels.jsonl").read_bytes() for name in ("with", "without")]
    assert labels[0] == labels[1]


def test_captions_and_classes_are_read_beside_each_other_and_found_again_elsewhere(models, tmp_path):
    captions = {"format": "coco_captions", "path": str(datasets.captions(tmp_path / "coco"))}
    datasets.photographs(tmp_path / "things/disc")
    classes = {"format": "classes", "path": str(tmp_path / "things")}
    config, output = settings(captions, classes), tmp_path / "out"
    walk(config, output, "labels")
    labels = [json.loads(line) for line in (output / "labels/labels.jsonl").read_text().splitlines()]
    assert {row["text"] for row in labels} == {"Two red discs.", "A green and a blue disc.", "disc"}
    failed = {failure.error for failure in Artifact.open(output / "records").failures()}
    assert failed == {"bad_value"}
    shutil.move(tmp_path / "out", tmp_path / "elsewhere")
    again = s0_records.run(config, tmp_path / "elsewhere")
    assert again.made == 0


def test_what_is_judged_may_not_teach(tmp_path):
    refs = [*datasets.REFS, datasets.ref(3, 2, 21, "train", "the green disc")]
    folder = datasets.refer(tmp_path / "refer", refs)
    source = {"format": "refer", "path": str(folder)}
    with pytest.raises(
        PairsError, match=r"1 images are taught about.*evaluated on: \S*0002\.jpg.*--drop-leaks"
    ):
        s0_records.run(settings(source), tmp_path / "out")
    assert not (tmp_path / "out/records/index.json").exists()
    with pytest.raises(PairsError, match="1 images are taught about"):
        s0_records.run(settings(source, splits=["train"]), tmp_path / "out")
    summary = s0_records.run(settings(source, drop_leaks=True), tmp_path / "out")
    assert summary.reasons == {"leak": 1}
    kept = {row["id"] for row in Artifact.open(tmp_path / "out/records").rows()}
    assert kept == {"refcoco-10", "refcoco-11", "refcoco-20"}
    assert {row["id"] for row in Artifact.open(tmp_path / "out/truth").rows()} == kept


def test_what_changes_in_a_file_that_was_read_is_seen(tmp_path):
    from ppt.store import StaleArtifact

    source = refer(tmp_path)
    s0_records.run(settings(source), tmp_path / "out")
    path = tmp_path / "refer/refcoco/instances.json"
    path.write_text(path.read_text() + " ")
    assert s0_records.run(settings(source), tmp_path / "out").made == 0, "it says the same"
    with pytest.raises(StaleArtifact, match=r"records\.sources\[0\]\.split: 'train' -> 'x'"):
        s0_records.run(settings({**source, "by": "unc", "split": "x"}), tmp_path / "out")


def test_data_check_counts_beside_what_is_published(tmp_path):
    source = refer(tmp_path)
    (tmp_path / "refer/images/mscoco/images/train2014" / datasets.NAMES[2]).unlink()
    said = dict(check(settings(source), tmp_path / "look/data.png"))
    assert said["  train      1 refs, 2 sentences, 1 images (published: 42404 and 16994)"] is False
    assert said["  no val, testB: the published set has it"] is False
    assert any(
        f"2 images, 1 missing: {datasets.NAMES[2]}" in line and not well for line, well in said.items()
    )
    assert said["3 sentences of 3 to 3 words, 3 in the middle"]
    assert said["3 true masks"]
    assert (tmp_path / "look/data.png").stat().st_size > 1000
