"""Non-target activation: what is measured, at which stages, and of whom."""

import shutil

import numpy as np
import pytest
from fixtures.pictures import disc, read_rows, write_rows
from fixtures.walk import TINY, rows, settings, walk

from ppt import rle
from ppt.activation import non_target
from ppt.segmenter.frames import Frame
from ppt.segmenter.reader import read_segmenter
from ppt.store import Artifact, StaleArtifact

STAGES = {"labels", "tap", "cost_1", "cost_2", "cost_3", "round_1", "round_2", "logits"}


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def with_distractors(pictures):
    """Every pair may teach; the discs of a.png are each other's distractors, those of b.png have none."""
    pairs, truth = read_rows(pictures / "pairs.jsonl"), read_rows(pictures / "truth.jsonl")
    write_rows(pictures / "pairs.jsonl", [{**row, "split": "train"} for row in pairs])
    other = {"a-left": "right", "a-right": "left"}
    for row in truth:
        if row["id"] in other:
            row["distractors"] = [rle.encode(disc(other[row["id"]])).to_json()]
        elif row["id"].startswith("b"):
            row["distractors"] = []
    write_rows(pictures / "truth.jsonl", truth)
    return pictures


def test_every_stage_is_measured_where_the_truth_names_distractors(models, with_distractors, output):
    config = settings(with_distractors, *TINY, "evaluate.nta=true", truth=True)
    found = walk(config, output, "evaluate")
    assert set(found.metrics["nta"]) == STAGES
    assert "non-target density: labels 0." in found.line()
    for one in found.metrics["nta"].values():
        assert (one["n"], one["images"]) == (2, 1)
        mean, low, high = one["density"]
        assert 0 <= low <= mean <= high <= 1
    each = read_rows(output / "evaluate" / "nta.jsonl")
    assert {(row["id"], row["stage"]) for row in each} == {
        (i, s) for i in ("a-left", "a-right") for s in STAGES
    }
    label = rle.decode(rle.from_json(rows(output, "labels")["a-left"]["segmentation"])).astype(np.float32)
    by_hand = non_target(label, disc("left"), [disc("right")])
    [own] = [row for row in each if (row["id"], row["stage"]) == ("a-left", "labels")]
    assert own["density"] == pytest.approx(by_hand.density)


def test_what_a_stage_lights_up_is_in_the_images_pixels(models, with_distractors, output):
    walk(settings(with_distractors, *TINY), output, "segmenter")
    reader = read_segmenter(Artifact.open(output / "segmenter"), models.clip)
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    texts = ["the red disc", "a disc on the left of another"]
    for maps, prediction in zip(reader.activations(image, texts), reader(image, texts), strict=True):
        assert set(maps) == STAGES - {"labels"}
        for name, map in maps.items():
            assert map.shape == (40, 60)
            assert 0 <= map.min() <= map.max() <= 1, name
        assert (maps["tap"].min(), maps["tap"].max()) == (0, 1)
        np.testing.assert_allclose(maps["round_2"], maps["logits"], atol=1e-6)  # the last round is the fusion
        # A probability above one half is a logit above 0, but where enlarging comes between.
        assert np.mean((maps["logits"] > 0.5) != rle.decode(prediction.mask)) < 0.02
    assert Frame(64, 40, 60).opened(np.full((8, 8), 0.5, np.float32)).tolist() == [[0.5] * 60] * 40


def test_without_a_segmenter_the_labels_are_measured(models, with_distractors, output):
    found = walk(settings(with_distractors, "evaluate.nta=true", truth=True), output, "evaluate")
    assert set(found.metrics["nta"]) == {"labels"}


def test_without_distractors_it_is_said_that_there_are_none(models, pictures, output):
    found = walk(settings(pictures, "evaluate.nta=true", truth=True), output, "evaluate")
    assert found.metrics["nta"] == {}
    assert "no truth names a distractor" in found.line()


def test_a_segmenter_of_other_labels_is_not_scored_beside_these(models, with_distractors, output):
    config = settings(with_distractors, *TINY, truth=True)
    walk(config, output, "predictions")
    other = settings(with_distractors, *TINY, "labels.min_agreement=0.99", truth=True)
    walk(other, output, "labels", "labels", fresh=True)
    with pytest.raises(
        StaleArtifact, match=r"segmenter: was taught by other labels; run `ppt segmenter --fresh`"
    ):
        walk(config, output, "evaluate", "evaluate")
    shutil.rmtree(output / "labels")
    walk(config, output, "labels", "labels")
    walk(settings(with_distractors, *TINY, "segmenter.seed=1"), output, "segmenter", "segmenter", True)
    with pytest.raises(StaleArtifact, match=r"segmenter: is not the one whose predictions there are"):
        walk(config, output, "evaluate", "evaluate")
