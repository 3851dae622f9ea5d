"""Metrics: values worked by hand, properties, and what an error says."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from ppt import metrics, rle
from ppt.metrics import THRESHOLDS, Conventions, Sample, Score, point_hits, score, summarise
from ppt.metrics.conventions import above, differences
from ppt.metrics.samples import squashed
from ppt.types import PointSet

COMMON = Conventions(empty="zero", at_least=True)
OTHER = Conventions(empty="one", at_least=False)
MASKS = arrays(bool, (5, 7))


def box(top, left, bottom, right, height=10, width=10):
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    return rle.encode(mask)


def points(*rows):
    values = np.array(rows, np.float32).reshape(-1, 3)
    return PointSet(values[:, :2], values[:, 2].astype(np.int8), 1.0)


def sample(truth, prediction, prompt=None, id="a", **groups):
    return Sample(id, truth, prediction, prompt, **groups)


def scored(intersection, union, id="a", **groups):
    iou = intersection / union
    return Score(id, intersection, union, iou, pointm=False, missing=False, groups=groups)


def test_a_hand_worked_set():
    """IoU 24/38, a missing mask of 60 pixels, and 7/10: oIoU (24 + 0 + 7) / (38 + 60 + 10)."""
    scores = [
        score(sample(box(0, 0, 5, 6), box(1, 0, 5, 8), points((0, 0, 1))), COMMON),
        score(sample(box(0, 0, 6, 10), None, points((5, 9, 1))), COMMON),
        score(sample(box(0, 0, 1, 10), box(0, 0, 1, 7), points((9, 0, 0), (3, 0, 1))), COMMON),
    ]
    assert [(s.intersection, s.union, s.missing) for s in scores] == [
        (24, 38, False),
        (0, 60, True),
        (7, 10, False),
    ]
    found = summarise(scores, COMMON)
    assert found["miou"] == pytest.approx((24 / 38 + 0 + 0.7) / 3)
    assert found["oiou"] == pytest.approx(31 / 108)
    assert [found[f"prec@{t}"] for t in THRESHOLDS] == pytest.approx([2 / 3, 2 / 3, 1 / 3, 0, 0])
    assert found["pointm"] == pytest.approx(2 / 3)
    assert (found["n"], found["missing"]) == (3, 1)


def test_a_missing_prediction_has_iou_0_and_its_truth_in_the_union():
    good, lost = (
        score(sample(box(0, 0, 4, 5), box(0, 0, 4, 5)), COMMON),
        score(sample(box(0, 0, 8, 10), None), COMMON),
    )
    assert (lost.iou, lost.intersection, lost.union, lost.missing) == (0.0, 0, 80, True)
    assert metrics.miou([good, lost]) == 0.5
    assert metrics.oiou([good, lost]) == 0.2


def test_the_threshold_itself_counts_or_not_by_convention():
    for threshold in THRESHOLDS:
        exactly = [scored(round(threshold * 10), 10)]
        assert metrics.precision_at(threshold, exactly, COMMON) == 1.0
        assert metrics.precision_at(threshold, exactly, OTHER) == 0.0


def test_the_empty_rule_is_for_two_empty_masks_and_never_for_a_missing_one():
    empty = box(0, 0, 0, 0)
    assert score(sample(empty, empty), COMMON).iou == 0.0
    assert score(sample(empty, empty), OTHER).iou == 1.0
    assert score(sample(empty, None), OTHER).iou == 0.0
    assert score(sample(box(0, 0, 2, 2), empty), OTHER).iou == 0.0
    assert metrics.oiou([score(sample(empty, empty), OTHER)]) == 1.0


@pytest.mark.parametrize(
    ("prompt", "hit"),
    [
        (points((4, 2, 1)), True),
        (points((4.4, 1.6, 1)), True),
        (points((4.6, 2, 1)), False),
        (points((2, 4, 1)), False),
        (points((0, 0, 0), (0, 0, -1), (4, 2, 1)), True),
        (points((0, 0, 1), (4, 2, 1)), False),
        (points((4, 2, 0)), False),
        (points(), False),
        (points((-1, 2, 1)), False),
        (points((4, 99, 1)), False),
    ],
)
def test_pointm_asks_the_first_positive_point(prompt, hit):
    assert point_hits(prompt, box(2, 3, 4, 5)) is hit


def test_an_item_without_points_is_a_miss():
    assert score(sample(box(0, 0, 9, 9), box(0, 0, 9, 9)), COMMON).pointm is False


def test_masks_of_different_size_are_an_error_that_names_the_id():
    with pytest.raises(ValueError, match=r"'dog 3': the predicted mask is 10x10, its truth 8x9"):
        score(sample(box(0, 0, 1, 1, 8, 9), box(0, 0, 1, 1), id="dog 3"), COMMON)


def test_nothing_to_summarise_is_an_error():
    with pytest.raises(ValueError, match="no sample was scored"):
        summarise([], COMMON)


def test_groups_are_summarised_apart_and_kinds_only_where_given():
    scores = [
        scored(1, 1, split="val", source="referring"),
        scored(0, 1, split="val", source="object_centric"),
        scored(1, 2, split="test", source="referring"),
        scored(1, 4, source="referring"),
    ]
    found = metrics.report(scores, COMMON)
    assert list(found["by_split"]) == ["test", "val"]
    assert found["by_split"]["val"]["miou"] == 0.5
    assert found["by_source"]["referring"]["n"] == 3
    assert found["labels"]["n"] == 4
    assert "by_kind" not in found
    kinds = metrics.report([*scores, scored(1, 1, kind="colour")], COMMON)["by_kind"]
    assert {kind: values["n"] for kind, values in kinds.items()} == {"colour": 1}
    more = [scored(1, 2, size="small", length="3-5"), scored(1, 1, size="small", length="")]
    found = metrics.report(more, COMMON)
    assert (found["by_size"]["small"]["n"], found["by_size"]["small"]["miou"]) == (2, 0.75)
    assert {name: one["n"] for name, one in found["by_length"].items()} == {"3-5": 1}
    assert not {"by_position", "by_distractors"} & set(found)


def test_every_switch_is_named_with_the_scores():
    told = metrics.report([scored(1, 2)], OTHER)["conventions"]
    switches = {
        "sample unit",
        "sentence field",
        "resolution",
        "binarisation",
        "empty rule",
        "Prec@X",
        "overlap rule",
    }
    assert switches <= set(told)
    assert told["Prec@X"].endswith("IoU > X")
    assert told["empty rule"].endswith("is 1")
    assert COMMON.describe()["Prec@X"].endswith("IoU >= X")
    assert "[0, 1]" in told["scale"]
    other = Conventions("one", False, "first_sentence", "REFER's `sent`", 480, "probability > 0.35", "once")
    same = [name for name in switches if other.describe()[name] == COMMON.describe()[name]]
    assert same == []
    assert other.line() == (
        "per first sentence, REFER's `sent`, at 480x480, probability > 0.35, empty = 1, IoU > X, overlap == 1"
    )


def test_two_evaluations_compare_where_no_switch_differs():
    mine, theirs = COMMON.describe(), OTHER.describe()
    assert [line.split(":")[0] for line in differences(mine, theirs)] == ["empty rule", "Prec@X"]
    assert differences(mine, {**mine, "PointM": "another wording of what is no switch"}) == []
    assert differences(mine, {}) != []


def test_what_sam_draws_compares_with_what_is_cut_but_two_cuts_do_not():
    cuts = [replace(COMMON, binarisation=above(threshold)).describe() for threshold in (0.35, 0.5)]
    assert differences(COMMON.describe(), cuts[0]) == differences(cuts[0], COMMON.describe()) == []
    assert differences(*cuts) == ["binarisation: probability > 0.35 (here), probability > 0.5 (there)"]


def test_a_scores_row_says_the_whole_score():
    one = score(sample(box(0, 0, 2, 2), box(0, 0, 1, 2), image="5f", split="val"), COMMON)
    row = one.to_json()
    assert (row["split"], row["image"], row["target"], row["empty"]) == ("val", "5f", True, False)
    assert Score.from_json(row) == one


def test_giou_counts_what_is_rightly_empty_and_no_lost_prediction():
    """Two sentences without a target, one answered with nothing, one with four pixels; a third one lost. Of
    two with a target one has IoU 1/2 and one an empty mask: gIoU (1 + 0 + 0 + 1/2 + 0) / 5.
    """
    empty, thing = box(0, 0, 0, 0), box(0, 0, 2, 4)
    drawn = [
        (empty, empty),
        (empty, box(0, 0, 2, 2)),
        (empty, None),
        (thing, box(0, 0, 2, 2)),
        (thing, empty),
    ]
    for conventions in (COMMON, OTHER):
        found = summarise([score(sample(t, p), conventions) for t, p in drawn], conventions)
        assert found["giou"] == pytest.approx(1.5 / 5)
        assert found["n_acc"] == pytest.approx(1 / 3)
        assert found["t_acc"] == 0.5
        assert found["missing"] == 1
    lost = summarise([score(sample(empty, empty), COMMON), score(sample(thing, None), COMMON)], COMMON)
    assert (lost["n_acc"], lost["t_acc"]) == (1.0, 0.0)


def test_giou_is_reported_where_something_is_not_meant():
    thing = score(sample(box(0, 0, 2, 2), box(0, 0, 2, 2)), COMMON)
    assert not {"giou", "n_acc", "t_acc"} & set(summarise([thing], COMMON))
    nothing = score(sample(box(0, 0, 0, 0), box(0, 0, 0, 0)), COMMON)
    assert summarise([nothing], COMMON)["giou"] == 1.0
    assert "t_acc" not in summarise([nothing], COMMON)


@settings(deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))), st.integers(1, 60))
def test_a_mask_is_squashed_as_pil_does_it(mask, side):
    expected = Image.fromarray(mask.astype(np.uint8)).resize((side, side), Image.Resampling.NEAREST)
    assert (squashed(rle.encode(mask), side) == np.asarray(expected)).all()


@given(MASKS)
def test_identical_masks_score_one(mask):
    found = summarise([score(sample(rle.encode(mask), rle.encode(mask)), OTHER)], COMMON)
    assert found["miou"] == found["oiou"] == found["prec@0.9"] == 1.0


@given(MASKS, MASKS)
def test_scores_agree_with_counting_pixels(truth, prediction):
    found = score(sample(rle.encode(truth), rle.encode(prediction)), COMMON)
    assert (found.intersection, found.union) == ((truth & prediction).sum(), (truth | prediction).sum())
    assert found.iou == (found.intersection / found.union if found.union else 0)


@settings(deadline=None)
@given(st.lists(st.tuples(MASKS, st.none() | MASKS), min_size=1, max_size=8), st.randoms())
def test_order_does_not_matter_and_all_scores_are_fractions(drawn, random):
    samples = [sample(rle.encode(t), None if p is None else rle.encode(p)) for t, p in drawn]
    scores = [score(one, COMMON) for one in samples]
    found = summarise(scores, COMMON)
    random.shuffle(scores)
    assert summarise(scores, COMMON) == found
    assert all(0 <= found[name] <= 1 for name in found if name not in ("n", "missing"))
    ladder = [found[f"prec@{threshold}"] for threshold in THRESHOLDS]
    assert ladder == sorted(ladder, reverse=True)


@given(st.lists(st.tuples(MASKS, MASKS), min_size=1, max_size=6), MASKS)
def test_a_lost_prediction_stays_in_every_denominator(drawn, lost):
    scores = [score(sample(rle.encode(t), rle.encode(p)), COMMON) for t, p in drawn]
    before, missing = summarise(scores, COMMON), score(sample(rle.encode(lost), None), COMMON)
    after = summarise([*scores, missing], COMMON)
    assert after["n"] == before["n"] + 1
    assert after["missing"] == 1
    assert after["miou"] == pytest.approx(before["miou"] * before["n"] / after["n"])
    assert after["oiou"] <= before["oiou"]
    assert after["prec@0.5"] == pytest.approx(before["prec@0.5"] * before["n"] / after["n"])


def test_means_do_not_depend_on_rounding_order():
    scores = [scored(1, n) for n in range(1, 50)]
    assert metrics.miou(scores) == math.fsum(1 / n for n in range(1, 50)) / 49
