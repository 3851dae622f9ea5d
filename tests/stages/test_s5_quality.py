"""The quality of the labels: with a second opinion, without one, and what evaluation says of it."""

import pytest
from fixtures.pictures import read_rows
from fixtures.processes import snapshot
from fixtures.walk import TINY, rows, settings, walk

from pipelines import s5_quality
from ppt import quality
from ppt.store import Artifact, StaleArtifact


def test_without_a_segmenter_it_is_stability_and_a_root_of_agreement(models, pictures, output):
    summary = walk(settings(pictures), output, "quality")
    views = rows(output, "views")
    assert summary.line() == "quality: 7 items, 0 skipped; 2 shards made, 0 kept"
    labels = rows(output, "labels")
    for id, row in rows(output, "quality").items():
        scores = labels[id]["scores"]
        if labels[id]["segmentation"] is None:
            nothing = {
                "outcome": "nothing",
                "second": None,
                "views": {},
                "reasons": ["no_mask"],
                "of": row["of"],
            }
            assert row == {"id": id, "quality": 0, "band": "drop", **nothing}
            continue
        assert set(row) == {"id", "quality", "band", "outcome", "second", "views", "reasons", "of"}
        assert {"id": id, **row["views"]} == views[id]
        assert row["second"] is None
        assert row["quality"] == pytest.approx(scores["stability"] * scores["agreement"] ** 0.2, abs=1e-6)
    joined = read_rows(output / "quality" / "quality.jsonl")
    assert [row["quality"] for row in joined] == sorted(row["quality"] for row in joined)


def test_the_segmenter_is_the_second_opinion(models, all_train, output, monkeypatch):
    monkeypatch.setattr(quality, "LEAST", 3)
    walk(settings(all_train, *TINY), output, "quality")
    predictions, labels = rows(output, "predictions"), rows(output, "labels")
    found = rows(output, "quality")
    assert {id for id, row in found.items() if row["second"] is not None} == {
        id for id, row in labels.items() if row["segmentation"] and id in predictions
    }
    for row in found.values():
        other = row["second"] is not None and row["second"] <= quality.SAME
        assert other == any(reason.startswith("second_opinion:") for reason in row["reasons"])


def test_it_resumes_and_is_of_these_labels(models, pictures, output):
    walk(settings(pictures), output, "quality")
    before = snapshot(output / "quality")
    summary = walk(settings(pictures), output, "quality", first="quality")
    assert (summary.made, summary.kept) == (0, 2)
    assert snapshot(output / "quality") == before
    with pytest.raises(StaleArtifact, match="keep"):
        walk(settings(pictures, "quality.keep=0.9"), output, "quality", first="quality")
    walk(settings(pictures, "labels.min_agreement=1"), output, "labels", first="labels", fresh=True)
    walk(settings(pictures), output, "views", first="views")
    assert walk(settings(pictures), output, "quality", first="quality").made == 2


def test_views_of_other_labels_are_refused(models, pictures, output):
    walk(settings(pictures), output, "views")
    other = settings(pictures, "labels.min_agreement=1")
    walk(other, output, "labels", first="labels", fresh=True)
    with pytest.raises(StaleArtifact, match="run `ppt views`"):
        walk(other, output, "quality", first="quality")


def test_labels_that_lack_a_score_are_refused(models, pictures, output, monkeypatch):
    walk(settings(pictures), output, "labels")
    monkeypatch.setattr(s5_quality, "SCORED", Artifact.open(output / "labels").manifest.schema_version + 1)
    with pytest.raises(StaleArtifact, match="ppt labels --fresh"):
        walk(settings(pictures), output, "quality", first="quality")


def test_without_other_views_none_are_told(models, pictures, output):
    walk(settings(pictures, "views.ask=[]"), output, "labels")
    walk(settings(pictures), output, "quality", first="quality")
    assert {str(row["views"]) for row in rows(output, "quality").values()} == {"{}"}


def test_evaluation_says_what_it_is_worth(models, pictures, output):
    config = settings(pictures, truth=True)
    found = walk(config, output, "evaluate")
    told = found.metrics["quality"]
    assert told["n"] == found.metrics["labels"]["n"]
    assert told["without_worst"] >= found.metrics["labels"]["miou"]
    assert sum(band["n"] for band in told["bands"].values()) == told["n"]
    assert "without its worst fifth" in found.line()


def test_evaluation_refuses_the_quality_of_other_labels(models, pictures, output):
    config = settings(pictures, truth=True)
    walk(config, output, "quality")
    other = settings(pictures, "labels.min_agreement=1", truth=True)
    walk(other, output, "labels", first="labels", fresh=True)
    with pytest.raises(StaleArtifact, match="run `ppt quality`"):
        walk(other, output, "evaluate", first="evaluate")


def test_bands_must_not_cross(pictures):
    with pytest.raises(ValueError, match="drop: expected no more than keep"):
        settings(pictures, "quality.keep=0.4")
    assert settings(pictures, "quality.keep=0.4", "quality.drop=0.2").quality.drop == 0.2
