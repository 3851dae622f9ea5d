"""`ppt labels --review`: decisions applied, recorded, honoured by what comes after, and taken back."""

import json

import numpy as np
import pytest
from fixtures.pictures import read_rows, write_rows
from fixtures.processes import snapshot
from fixtures.walk import TINY, rows, settings, walk

from pipelines.s5_segmenter.lessons import taught
from ppt import rle
from ppt.store import Artifact


@pytest.fixture
def review(tmp_path):
    path = tmp_path / "mine.jsonl"
    write_rows(
        path,
        [
            {"id": "a-left", "decision": "drop", "who": "Ann", "when": "2026-01-02T03:04:05Z"},
            {"id": "a-right", "decision": "keep", "who": "Ann"},
            {"id": "b-middle", "decision": "candidate", "candidate": 99},
            {"id": "nobody", "decision": "keep"},
        ],
    )
    return path


def test_decisions_are_applied_and_counted(command, models, pictures, output, review):
    command("run", "custom", "--pairs", pictures / "pairs.jsonl", "--output", output)
    said = command("labels", "custom", "--output", output, "--review", review)
    assert "3 shards made" in said.out or "1 shards made" in said.out
    assert "2 reviewed, 1 decisions passed over, 1 of ids that are not here" in said.out
    found = {row["id"]: row for row in read_rows(output / "labels" / "labels.jsonl")}
    assert (found["a-left"]["weight"], found["a-right"]["weight"]) == (0, 1)
    assert found["a-left"]["review"] == {
        "decision": "drop", "who": "Ann", "when": "2026-01-02T03:04:05Z", "note": "",
    }  # fmt: skip
    assert any("no candidate 100" in reason for reason in found["b-middle"]["reasons"])
    assert sum("review" in row for row in found.values()) == 2
    again = command("labels", "custom", "--output", output, "--review", review)
    assert "0 shards made" in again.out


def test_the_review_lies_with_the_run_and_is_taken_in_as_it_changes(models, pictures, output, review):
    config = settings(pictures)
    walk(config, output, "quality")
    before = snapshot(output / "labels")
    (output / "review.jsonl").write_bytes(review.read_bytes())
    walk(config, output, "quality", first="labels")
    judged = rows(output, "quality")
    assert (judged["a-left"]["quality"], judged["a-left"]["band"]) == (0, "drop")
    assert (judged["a-right"]["quality"], judged["a-right"]["band"]) == (1, "keep")
    assert judged["a-right"]["reasons"] == ["reviewed:keep"]
    with (output / "review.jsonl").open("a") as file:
        file.write('{"id": "a-left", "decision": "flag"}\n')
    assert walk(config, output, "labels", first="labels").made == 1, "one shard holds what it is about"
    (output / "review.jsonl").unlink()
    walk(config, output, "labels", first="labels")
    assert snapshot(output / "labels") == before, "taken away, it leaves no trace"


def test_training_honours_it(models, all_train, output, review):
    config = settings(all_train, *TINY)
    walk(config, output, "labels")
    (output / "review.jsonl").write_bytes(review.read_bytes())
    walk(config, output, "labels", first="labels")
    teaching = taught(config, Artifact.open(output / "records"), Artifact.open(output / "labels"))
    weights = {label.id: label.weight for image in teaching for label in image.labels}
    assert "a-left" not in weights
    assert weights["a-right"] == 1


def test_a_review_that_is_none_stops_before_any_work(command, models, pictures, output, review):
    command("run", "custom", "--pairs", pictures / "pairs.jsonl", "--output", output)
    before = snapshot(output / "labels")
    review.write_text(json.dumps({"id": "a-left", "decision": "burn"}) + "\n")
    said = command("labels", "custom", "--output", output, "--review", review)
    assert said.code == 2
    assert f"{review}: line 1: decision: expected one of" in said.err
    assert not (output / "review.jsonl").exists()
    assert snapshot(output / "labels") == before
    missing = command("labels", "custom", "--output", output, "--review", "nowhere.jsonl")
    assert missing.code == 2
    assert "nowhere.jsonl" in missing.err


def test_a_mask_drawn_where_there_was_none_is_kept(models, pictures, output):
    """A label that SAM gave no mask has no scores of one; the mask that a person draws has none either."""
    walk(settings(pictures, "masks.max_area=0.001", "masks.min_area=0.0005"), output, "labels")
    [id, *_], found = rows(output, "labels"), rows(output, "records")
    assert rows(output, "labels")[id]["segmentation"] is None
    drawn = np.zeros((found[id]["height"], found[id]["width"]), bool)
    drawn[:4, :4] = True
    write_rows(
        output / "review.jsonl", [{"id": id, "decision": "mask", "segmentation": rle.encode(drawn).to_json()}]
    )
    config = settings(pictures, "masks.max_area=0.001", "masks.min_area=0.0005")
    walk(config, output, "labels", first="labels", fresh=True)
    walk(config, output, "quality", first="views")
    judged = rows(output, "quality")
    assert {name: judged[id][name] for name in ("quality", "band", "outcome", "reasons")} == {
        "quality": 1.0, "band": "keep", "outcome": "one", "reasons": ["reviewed:mask"],
    }  # fmt: skip
