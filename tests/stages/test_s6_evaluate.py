"""Stage 6: what is joined, what counts as missing, and the two files it leaves."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from pipelines import s0_records, s6_evaluate
from ppt import rle
from ppt.config import Config
from ppt.manifest import Manifest
from ppt.settings import EvaluateConfig, RecordsConfig
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


def artifact(folder, stage, rows, inputs=None, **config):
    manifest = Manifest(stage, 1, config, inputs or {}, {}, 0)
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
    image = hashlib.sha256((data / "a.png").read_bytes()).hexdigest()
    assert rows["half"] == {
        "id": "half", "iou": 0.5, "intersection": 16, "union": 32, "pointm": True, "missing": False,
        "target": True, "empty": False, "image": image, "split": "val", "source": "referring", "kind": "name",
        "size": "small", "length": "1-2", "position": "not positional", "distractors": "",
    }  # fmt: skip
    assert (rows["broken"]["union"], rows["broken"]["missing"]) == (48, True)
    assert [rows["broken"][name] for name in ("image", "size", "length", "position")] == ["", "small", "", ""]


def test_the_line_tells_the_scores_and_what_is_missing(data, output):
    found = s6_evaluate.run(config(data), output)
    assert found.line().startswith("evaluate: 4 samples, 2 missing; miou 0.375, oiou 0.217, prec@0.5 0.500")
    switches = "per sentence, raw text, native resolution, SAM's logits > 0, empty = 0, IoU >= X, overlap > 0"
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
        file.write('{"id": "new", "image": "a.png", "text": "more", "split": "val"}\n')
    s0_records.run(config(data, truth=None), output, fresh=True)
    with pytest.raises(StaleArtifact, match="other records"):
        s6_evaluate.run(config(data), output)


def test_other_labels_are_scored_anew(data, output):
    s6_evaluate.run(config(data), output)
    labelled(output, half=box(0, 0, 4, 8))
    found = s6_evaluate.run(config(data), output)
    assert found.metrics["labels"]["missing"] == 3


def test_a_mask_of_another_size_is_an_error_that_names_the_id(data, output):
    labelled(output, half=box(0, 0, 1, 1, 9, 9))
    with pytest.raises(ValueError, match=r"'half': the predicted mask is 9x9, its truth 6x8"):
        s6_evaluate.run(config(data), output)


# --- conventions


def test_another_resolution_is_scored_and_told(data, output):
    """Of 6 x 8 pixels 4 x 4 have rows 0, 2, 3 and 5 and columns 1, 3, 5 and 7: half, whose truth is rows 0 to
    3, 4/12, whole 1/1, nothing 0/4, broken 0/16.
    """
    found = s6_evaluate.run(config(data, resolution=4), output).metrics
    assert found["labels"]["miou"] == (4 / 12 + 1 + 0 + 0) / 4
    assert found["labels"]["oiou"] == (4 + 1) / (12 + 1 + 4 + 16)
    assert found["conventions"]["resolution"].startswith("4: prediction and truth are resized to 4x4")
    with pytest.raises(StaleArtifact, match=r"evaluate\.resolution: 4 -> 'native'"):
        s6_evaluate.run(config(data), output)


def test_the_first_sentence_of_each_thing_stands_for_it(data, tmp_path):
    """half and whole are about one thing, and half stands first; broken has its ref for itself."""
    rows = [json.loads(line) for line in (data / "truth.jsonl").read_text().splitlines()]
    refs = {"half": "ref 1", "whole": "ref 1", "broken": "ref 1"}
    json_lines(data / "truth.jsonl", [{**row, "ref": refs.get(row["id"], "")} for row in rows])
    output, given = tmp_path / "out", config(data, unit="first_sentence")
    s0_records.run(given, output)
    labelled(output, half=box(0, 0, 2, 8), whole=box(0, 0, 2, 2), nothing=None)
    found = s6_evaluate.run(given, output)
    lines = (output / "evaluate" / "per_sample.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["broken", "half", "nothing"]
    assert found.metrics["labels"]["miou"] == 0.5 / 3
    assert "per first sentence" in found.line()
    assert found.metrics["conventions"]["sample unit"].startswith("one sample per thing: the first of its")


def test_only_what_is_scored_is_measured_for_non_target_activation(data, tmp_path):
    rows = [json.loads(line) for line in (data / "truth.jsonl").read_text().splitlines()]
    more = {"ref": "ref 1", "distractors": [box(4, 4, 6, 8)]}
    told = [{**row, **(more if row["id"] in ("half", "whole") else {})} for row in rows]
    json_lines(data / "truth.jsonl", told)
    output = tmp_path / "out"
    s0_records.run(config(data), output)
    labelled(output, half=box(0, 0, 2, 8), whole=box(0, 0, 2, 2))
    for unit, count in (("sentence", 2), ("first_sentence", 1)):
        found = s6_evaluate.run(config(data, unit=unit, nta=True), output, fresh=True).metrics
        assert found["nta"]["labels"]["n"] == count
        assert found["by_distractors"]["1"]["n"] == count


# --- a segmenter's masks


def predicted(output, **masks):
    """DIR/predictions as stage 5 would leave it, cut at 0.35."""
    rows = [{"id": id, "segmentation": mask, "sure": 0.5} for id, mask in masks.items()]
    made = {"clip": {}, "predictions": {"threshold": 0.35}}
    artifact(output, "predictions", rows, {"segmenter": "one"}, **made)


def test_a_segmenters_empty_mask_is_an_answer_and_a_lost_one_is_none(data, output):
    predicted(output, half=box(0, 0, 4, 8), whole=None, untold=None)
    found = s6_evaluate.run(config(data), output)
    segmenter = found.metrics["segmenter"]
    assert segmenter["all"]["miou"] == 1 / 4
    assert segmenter["all"]["missing"] == 2  # nothing, and broken
    assert "pointm" not in segmenter["all"]
    assert segmenter["conventions"]["binarisation"] == "probability > 0.35"
    assert found.metrics["conventions"]["binarisation"] == "SAM's logits > 0"
    assert found.line().endswith("overlap > 0; segmenter: probability > 0.35)")
    rows = [json.loads(line) for line in (output / "evaluate" / "segmenter.jsonl").read_text().splitlines()]
    assert {row["id"]: (row["empty"], row["missing"]) for row in rows} == {
        "broken": (False, True), "half": (False, False), "nothing": (False, True), "whole": (True, False),
    }  # fmt: skip
    assert [*found.unmet] == [
        "predictions.threshold is 0.5 in the config, but DIR/predictions was made with 0.35;"
        " run `ppt predictions --fresh`"
    ]


def test_sentences_that_mean_nothing_are_counted_apart(data, tmp_path):
    """nothing and broken have an empty truth: the segmenter says so of the first, of the second nothing."""
    rows = [json.loads(line) for line in (data / "truth.jsonl").read_text().splitlines()]
    empty = box(0, 0, 0, 0)
    json_lines(
        data / "truth.jsonl",
        [{**row, "segmentation": empty} if row["id"] in ("nothing", "broken") else row for row in rows],
    )
    output = tmp_path / "out"
    s0_records.run(config(data), output)
    labelled(output, half=box(0, 0, 2, 8), whole=box(0, 0, 2, 2), nothing=None)
    predicted(output, half=box(0, 0, 4, 8), whole=None, nothing=None)
    found = s6_evaluate.run(config(data), output).metrics
    own = found["segmenter"]["all"]
    assert (own["giou"], own["n_acc"], own["t_acc"]) == ((1 + 0 + 1 + 0) / 4, 1 / 2, 1 / 2)
    # A label without a mask is none that says so.
    labels = found["labels"]
    assert (labels["giou"], labels["n_acc"], labels["t_acc"]) == ((0.5 + 1 + 0 + 0) / 4, 0, 1)
    assert labels["missing"] == 2
    assert found["by_size"]["small"]["n"] == 2


# --- what is printed


def test_every_split_has_its_row(data, output):
    predicted(output, half=box(0, 0, 4, 8))
    lines = [*s6_evaluate.run(config(data), output).splits()]
    assert [line.split()[:5] for line in lines[:5]] == [
        ["n", "missing", "mIoU", "oIoU", "P@0.5"],
        ["test", "labels", "1", "1", "0.000"],
        ["test", "segmenter", "1", "1", "0.000"],
        ["val", "labels", "3", "1", "0.500"],
        ["val", "segmenter", "3", "2", "0.333"],
    ]
    assert lines[5].startswith("  note: predictions.threshold")
    assert len({len(line.rstrip()) for line in (lines[1], lines[3])}) == 1


def test_groups_by_sentence_and_truth_are_reported(data, output):
    found = s6_evaluate.run(config(data), output).metrics
    assert {name: one["n"] for name, one in found["by_size"].items()} == {"small": 4}
    # What could not be read has no sentence here.
    assert {name: one["n"] for name, one in found["by_length"].items()} == {"1-2": 3}
    assert {name: one["n"] for name, one in found["by_position"].items()} == {"not positional": 3}
    assert "by_distractors" not in found
