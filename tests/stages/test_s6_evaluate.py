"""Stage 6: what is joined, what counts as missing, and the two files it leaves."""

import json

import numpy as np
import pytest
from PIL import Image

from pipelines import s0_records, s6_evaluate
from ppt import rle
from ppt.config import Config, EvaluateConfig, RecordsConfig
from ppt.manifest import Manifest
from ppt.store import StaleArtifact, begin

HEIGHT, WIDTH = 6, 8


def box(top, left, bottom, right, height=HEIGHT, width=WIDTH):
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    return rle.encode(mask).to_json()


def json_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def data(tmp_path):
    """Four pairs with truth, one without; of those, one whose image is broken and one that got no mask."""
    folder = tmp_path / "data"
    folder.mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "a.png")
    (folder / "broken.png").write_bytes(b"\x89PNG nothing")
    pair = {"image": "a.png", "text": "it", "split": "val", "kind": "name"}
    json_lines(
        folder / "pairs.jsonl",
        [
            {**pair, "id": "half"},
            {**pair, "id": "whole", "source": "object_centric"},
            {**pair, "id": "nothing", "split": "test"},
            {**pair, "id": "broken", "image": "broken.png"},
            {**pair, "id": "untold"},
        ],
    )
    truth = {"half": (0, 0, 4, 8), "whole": (0, 0, 2, 2), "nothing": (0, 0, 1, 8), "broken": (0, 0, 6, 8)}
    json_lines(folder / "truth.jsonl", [{"id": id, "segmentation": box(*at)} for id, at in truth.items()])
    return folder


def config(folder, truth="truth.jsonl", **evaluate):
    records = RecordsConfig(pairs=folder / "pairs.jsonl", truth=truth and folder / truth)
    return Config(records=records, evaluate=EvaluateConfig(**evaluate))


def artifact(folder, stage, rows):
    manifest = Manifest(stage, 1, {}, {}, {}, 0)
    with begin(folder / stage, manifest, {"00000": [row["id"] for row in rows]}, fresh=True) as writer:
        for shard in writer.missing:
            shard.write(rows)
        writer.finish()


def labelled(output, **masks):
    """DIR/masks and DIR/labels as stages 3 and 4 would leave them, one point in each mask's corner."""
    common = {"image": "a.png", "text": "it"}
    labels, prompts = [], []
    for id, mask in masks.items():
        points = [[7, 5, 0], [0, 0, 1]] if mask else []
        prompts.append({**common, "id": id, "points": points})
        label = {"segmentation": mask, "scores": {}, "weight": 0.5 if mask else 0.0, "reasons": []}
        labels.append({**common, "id": id, **label})
    artifact(output, "masks", prompts)
    artifact(output, "labels", labels)


@pytest.fixture
def output(data, tmp_path):
    s0_records.run(config(data), tmp_path / "out")
    labelled(
        tmp_path / "out", half=box(0, 0, 2, 8), whole=box(0, 0, 2, 2), nothing=None, untold=box(0, 0, 1, 1)
    )
    return tmp_path / "out"


def test_scores_by_hand_with_what_was_lost_on_the_way(data, output):
    found = s6_evaluate.run(config(data), output)
    metrics = json.loads((output / "evaluate" / "metrics.json").read_text())
    assert found.metrics == metrics
    assert metrics["labels"]["miou"] == (0.5 + 1 + 0 + 0) / 4
    assert metrics["labels"]["oiou"] == (16 + 4) / (32 + 4 + 8 + 48)
    assert metrics["labels"]["prec@0.5"] == 0.5
    assert metrics["labels"]["prec@0.9"] == 0.25
    assert metrics["labels"]["pointm"] == 0.5
    assert (metrics["labels"]["n"], metrics["labels"]["missing"]) == (4, 2)
    assert {name: group["n"] for name, group in metrics["by_split"].items()} == {"test": 1, "val": 3}
    assert metrics["by_source"]["object_centric"]["miou"] == 1.0
    assert metrics["by_kind"]["name"]["n"] == 4
    assert metrics["conventions"]["Prec@X"].endswith(">= X")
    assert metrics["truth_refused"] == 0


def test_samples_are_sorted_by_id_and_carry_what_they_add(data, output):
    s6_evaluate.run(config(data), output)
    lines = (output / "evaluate" / "per_sample.jsonl").read_text().splitlines()
    rows = {row["id"]: row for row in map(json.loads, lines)}
    assert list(rows) == ["broken", "half", "nothing", "whole"]
    assert rows["half"] == {
        "id": "half", "iou": 0.5, "intersection": 16, "union": 32, "pointm": True, "missing": False,
        "split": "val", "source": "referring", "kind": "name",
    }  # fmt: skip
    assert (rows["broken"]["union"], rows["broken"]["missing"]) == (48, True)


def test_the_line_tells_the_scores_and_what_is_missing(data, output):
    found = s6_evaluate.run(config(data), output)
    assert found.line().startswith("evaluate: 4 samples, 2 missing; miou 0.375, oiou 0.217, prec@0.5 0.500")
    switches = "per sentence, raw text, native resolution, logits > 0, empty = 0, IoU >= X, overlap > 0"
    assert found.line().endswith(f"(fractions; {switches})")
    assert (found.items, found.skipped) == (4, 0)


def test_conventions_of_the_config_are_used_and_told(data, output):
    found = s6_evaluate.run(config(data, at_least=False), output).metrics
    assert found["labels"]["prec@0.5"] == 0.25
    assert found["conventions"]["Prec@X"].endswith("> X")


def test_the_same_bytes_again(data, output):
    def files():
        return {path: path.read_bytes() for path in (output / "evaluate").rglob("*") if path.is_file()}

    s6_evaluate.run(config(data), output)
    before = files()
    s6_evaluate.run(config(data), output)
    assert files() == before
    assert (output / "evaluate" / "preview.png") in before


def test_without_truth_nothing_is_written_and_it_is_said(data, tmp_path):
    settings = config(data, truth=None)
    s0_records.run(settings, tmp_path / "out")
    labelled(tmp_path / "out", half=None)
    found = s6_evaluate.run(settings, tmp_path / "out")
    assert found.metrics is None
    assert found.items == 0
    assert (
        found.line() == "evaluate: no truth, so nothing was scored (name the true masks with records.truth)"
    )
    assert not (tmp_path / "out" / "evaluate").exists()


def test_truth_of_other_records_is_refused(data, output):
    with open(data / "pairs.jsonl", "a", encoding="utf-8") as file:
        file.write('{"id": "new", "image": "a.png", "text": "more"}\n')
    s0_records.run(config(data, truth=None), output, fresh=True)
    with pytest.raises(StaleArtifact, match="other records"):
        s6_evaluate.run(config(data), output)


def test_other_labels_need_fresh(data, output):
    s6_evaluate.run(config(data), output)
    labelled(output, half=box(0, 0, 4, 8))
    with pytest.raises(StaleArtifact, match=r"inputs\.labels"):
        s6_evaluate.run(config(data), output)
    found = s6_evaluate.run(config(data), output, fresh=True)
    assert found.metrics["labels"]["missing"] == 3


def test_a_mask_of_another_size_is_an_error_that_names_the_id(data, output):
    labelled(output, half=box(0, 0, 1, 1, 9, 9))
    with pytest.raises(ValueError, match=r"'half': the predicted mask is 9x9, its truth 6x8"):
        s6_evaluate.run(config(data), output)
