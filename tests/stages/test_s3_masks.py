"""Stage 3: points, candidates and choices as specified; SAM asked once per image, never without evidence."""

import numpy as np
import pytest
from fixtures.pictures import HEIGHT, WIDTH, disc, picture
from fixtures.processes import snapshot
from fixtures.walk import failures, rows, settings, walk
from PIL import Image

from pipelines import doors
from ppt import rle
from ppt.store import StaleArtifact

KEYS = {
    "id", "image", "text", "height", "width",
    "sets", "points", "point_reasons", "peak", "sure", "candidates", "chosen", "reasons",
}  # fmt: skip
SCORES = {"set", "fit", "predicted_iou", "stability", "agreement", "relevance", "contrast", "area"}
DISCS = {
    "a-left": "left", "a-right": "right", "b-left": "left", "b-middle": "middle",
    "c-right": "right", "copy": "left",
}  # fmt: skip


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out"


def test_rows_are_as_specified_and_all_candidates_are_kept(models, pictures, output):
    summary = walk(settings(pictures), output, "masks")
    assert summary.line() == "masks: 7 items, 0 skipped; 2 shards made, 0 kept"
    for id, row in rows(output, "masks").items():
        assert set(row) == KEYS
        assert (row["height"], row["width"]) == (HEIGHT, WIDTH)
        for candidate in row["candidates"]:
            assert set(candidate) == SCORES | {"segmentation"}
            mask = rle.from_json(candidate["segmentation"], HEIGHT, WIDTH)
            assert candidate["area"] == pytest.approx(rle.area(mask) / (HEIGHT * WIDTH), abs=1e-6)
        assert len(row["candidates"]) == (3 if id in DISCS else 0)
    assert (output / "masks" / "preview.png").stat().st_size > 1000


def test_the_disc_is_chosen_by_agreement_against_sams_own_score(models, pictures, output):
    walk(settings(pictures), output, "masks")
    found = rows(output, "masks")
    for id, where in DISCS.items():
        row = found[id]
        [[x, y, label]] = row["points"]
        assert label == 1
        assert disc(where)[round(y), round(x)], id
        chosen = rle.decode(rle.from_json(row["candidates"][row["chosen"]]["segmentation"]))
        np.testing.assert_array_equal(chosen, disc(where))
        assert row["reasons"] == ["chosen:agreement", "against_predicted_iou"]


def test_sams_own_choice_obeys_the_largest_area(models, pictures, output):
    own = settings(pictures, "masks.choice=predicted_iou")
    walk(own, output, "masks")
    assert rows(output, "masks")["a-left"]["chosen"] == 2
    capped = settings(pictures, "masks.choice=predicted_iou", "masks.max_area=0.5")
    walk(capped, output, "masks", first="masks", fresh=True)
    assert rows(output, "masks")["a-left"]["chosen"] == 0
    none = settings(pictures, "masks.max_area=0.01")
    walk(none, output, "masks", first="masks", fresh=True)
    row = rows(output, "masks")["a-left"]
    assert (row["chosen"], row["reasons"], len(row["candidates"])) == (
        None,
        ["no_candidate:background_sized"],
        3,
    )


def test_sam_sees_a_content_once_and_gets_its_sentences_together(models, pictures, output):
    walk(settings(pictures), output, "masks")
    assert models.sam.calls == {"embed": 3, "predict": 3}, "four contents, one of them without evidence"


def test_no_evidence_means_no_points_no_candidates_and_no_question_to_sam(models, pictures, output):
    for path in ("a.png", "b.png", "c.png", "copy.jpg"):
        (pictures / path).write_bytes((pictures / "grey.png").read_bytes())
    walk(settings(pictures), output, "masks")
    for row in rows(output, "masks").values():
        assert (row["points"], row["candidates"], row["chosen"], row["peak"]) == ([], [], None, 0)
        assert row["point_reasons"] == row["reasons"] == ["no_evidence"]
    assert models.sam.calls == {}


@pytest.mark.parametrize("method", ["surgery", "read"])
def test_every_way_to_points_is_reachable_by_config(models, pictures, output, method):
    walk(settings(pictures, f"points.method={method}"), output, "masks")
    for row in rows(output, "masks").values():
        assert row["sure"] == (row["chosen"] is not None), "a map has one set, and no doubt"
    row = rows(output, "masks")["a-left"]
    assert {label for _, _, label in row["points"]} >= {0, 1}
    assert row["point_reasons"] == [method]


def test_an_image_that_goes_away_or_changes_fails_and_the_rest_goes_on(models, pictures, output):
    config = settings(pictures)
    walk(config, output, "relevance")
    (pictures / "a.png").unlink()
    Image.fromarray(picture({"left": "blue"})).save(pictures / "c.png")
    (pictures / "grey.png").unlink()
    summary = walk(config, output, "masks", first="masks")
    assert failures(output, "masks") == {
        "a-left": "missing", "a-right": "missing", "copy": "missing", "c-right": "changed",
    }  # fmt: skip
    assert set(rows(output, "masks")) == {"b-left", "b-middle", "nothing"}
    assert summary.skipped == 4


def test_what_failed_before_is_not_asked_for_again(models, pictures, output):
    config = settings(pictures)
    walk(config, output, "records")
    (pictures / "b.png").unlink()
    summary = walk(config, output, "masks", first="relevance")
    assert (summary.items, summary.skipped) == (5, 0)


@pytest.mark.parametrize(
    "error", [FloatingPointError("logits are not finite"), ValueError("NaN predicted_iou")]
)
def test_masks_that_are_not_finite_fail_their_image_alone(models, pictures, output, monkeypatch, error):
    real = models.sam.predict

    def predict(embedding, prompts):
        if len(prompts) == 1:
            raise error
        return real(embedding, prompts)

    monkeypatch.setattr(models.sam, "predict", predict)
    walk(settings(pictures), output, "masks")
    assert failures(output, "masks") == {"c-right": "bad_masks"}
    assert len(rows(output, "masks")) == 6


def test_again_is_nothing_to_do_and_other_points_are_stale(models, pictures, output):
    walk(settings(pictures), output, "masks")
    before, calls = snapshot(output), dict(models.sam.calls)
    assert walk(settings(pictures), output, "masks").made == 0
    assert (snapshot(output), models.sam.calls) == (before, calls)
    with pytest.raises(StaleArtifact, match=r"points\.method: 'peak' -> 'read'"):
        walk(settings(pictures, "points.method=read"), output, "masks")


def test_a_damaged_shard_alone_is_redone(models, pictures, output):
    walk(settings(pictures), output, "masks")
    before = snapshot(output)
    (output / "masks" / "shards" / "00001.jsonl").write_bytes(b"\0" * 100)
    summary = walk(settings(pictures), output, "masks", first="masks")
    assert (summary.made, summary.kept) == (1, 1)
    assert snapshot(output) == before


@pytest.mark.parametrize(("gib", "folder"), [(0.0, None), (0.5, "embeddings")])
def test_what_sam_saw_is_kept_with_the_run_where_that_is_allowed(
    models, pictures, output, monkeypatch, gib, folder
):
    asked = []
    monkeypatch.setattr(doors, "load_sam", lambda *arguments: asked.append(arguments[4]) or models.sam)
    monkeypatch.setattr(doors, "KeptEmbeddings", lambda *arguments: arguments)
    walk(settings(pictures, f"embeddings_gib={gib}"), output, "masks")
    assert asked == [folder and (output / folder, 2**29)]
    walk(settings(pictures), output, "masks", first="masks")  # no other recipe: the masks are the same
