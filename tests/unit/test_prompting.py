import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ppt import rle
from ppt.prompting import choose, coverage, judge
from ppt.types import MaskCandidates, RelevanceMap

SIDE = 40


def box(top, left, bottom, right):
    mask = np.zeros((SIDE, SIDE), bool)
    mask[top:bottom, left:right] = True
    return mask


def candidates(*masks, predicted_iou=None, stability=None):
    ones = np.ones(len(masks), np.float32)
    return MaskCandidates(
        tuple(rle.encode(m) for m in masks),
        ones if predicted_iou is None else np.array(predicted_iou, np.float32),
        ones if stability is None else np.array(stability, np.float32),
    )


def left_half_map():
    values = np.zeros((4, 4), np.float32)
    values[:, :2] = 1
    return RelevanceMap(values, SIDE, SIDE)


def test_a_mask_that_is_the_map_agrees_fully():
    (judged,) = judge(candidates(box(0, 0, 40, 20)), left_half_map())
    assert judged.agreement == pytest.approx(1)
    assert (judged.relevance, judged.contrast, judged.area) == pytest.approx((1, 1, 0.5))


def test_a_part_and_a_spill_agree_less():
    part, whole, spill = judge(
        candidates(box(0, 0, 10, 10), box(0, 0, 40, 20), box(0, 0, 40, 30)), left_half_map()
    )
    # By hand: one of eight relevant cells, c = 1/16; corr = (1/16)(1/2) / sqrt((1/16)(15/16)(1/4)) =
    # 1/sqrt(15).
    assert part.agreement == pytest.approx(1 / np.sqrt(15))
    # Twelve of sixteen cells: cov = 1/2 - 3/8 = 1/8; sqrt((3/16)(1/4)) = sqrt(3)/8.
    assert spill.agreement == pytest.approx(1 / np.sqrt(3))
    assert whole.agreement > spill.agreement > part.agreement


def test_flat_maps_and_empty_masks_agree_with_nothing():
    flat = RelevanceMap(np.ones((4, 4), np.float32), SIDE, SIDE)
    assert judge(candidates(box(0, 0, 5, 5)), flat)[0].agreement == 0
    assert judge(candidates(box(0, 0, 0, 0)), left_half_map())[0].agreement == 0


def test_choice_follows_agreement_not_sams_own_score():
    found = candidates(box(0, 20, 40, 40), box(0, 0, 40, 20), predicted_iou=[0.99, 0.7])
    judged = judge(found, left_half_map())
    choice = choose(found, judged, "agreement", 0.0, 0.9)
    assert choice.index == 1
    assert choice.reasons == ("chosen:agreement", "against_predicted_iou")
    assert choose(found, judged, "predicted_iou", 0.0, 0.9).index == 0


def test_background_sized_masks_are_never_taken():
    found = candidates(box(0, 0, 40, 40), box(0, 0, 40, 39))
    choice = choose(found, judge(found, left_half_map()), "predicted_iou", 0.0, 0.9)
    assert choice.index is None
    assert choice.reasons == ("no_candidate:background_sized",)


def test_empty_candidates_and_disagreement_are_answers():
    nothing = candidates(box(0, 0, 0, 0))
    judged = judge(nothing, left_half_map())
    assert choose(nothing, judged, "agreement", 0.001, 0.9).reasons == ("no_candidate:empty",)
    wrong = candidates(box(0, 20, 40, 40))
    choice = choose(wrong, judge(wrong, left_half_map()), "agreement", 0.0, 0.9)
    assert (choice.index, choice.reasons) == (None, ("no_candidate:disagrees_with_relevance",))


def test_unstable_masks_lose_to_stable_ones_that_agree_as_well():
    found = candidates(box(0, 0, 40, 20), box(0, 0, 40, 20), stability=[0.3, 0.9])
    assert choose(found, judge(found, left_half_map()), "agreement", 0.0, 0.9).index == 1


@settings(deadline=None, max_examples=50)
@given(arrays(bool, (SIDE, SIDE)), st.integers(1, 9), st.integers(1, 9))
def test_coverage_keeps_the_area(mask, rows, columns):
    assert coverage(mask, (rows, columns)).mean() == pytest.approx(mask.mean(), abs=2e-2)


@settings(deadline=None, max_examples=50)
@given(arrays(np.float32, (5, 5), elements=st.floats(-1, 1, width=16)), arrays(bool, (SIDE, SIDE)))
def test_judgements_stay_in_range_and_do_not_depend_on_scale(values, mask):
    (judged,) = judge(candidates(mask), RelevanceMap(values, SIDE, SIDE))
    assert -1 <= judged.agreement <= 1
    assert 0 <= judged.relevance <= 1
    (doubled,) = judge(candidates(mask), RelevanceMap(values * 2, SIDE, SIDE))
    assert doubled.agreement == pytest.approx(judged.agreement, abs=1e-5)
