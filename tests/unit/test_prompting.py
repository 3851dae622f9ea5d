from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ppt import rle
from ppt.prompting import Answer, Choice, Prompt, Rules, ask, choose, coverage, judge
from ppt.types import MaskCandidates, PointSet, RelevanceMap

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
    choice = choose(found, judged, Rules("agreement", 0.0, 0.9))
    assert choice.index == 1
    assert choice.reasons == ("chosen:agreement", "against_predicted_iou")
    assert choose(found, judged, Rules("predicted_iou", 0.0, 0.9)).index == 0


def test_background_sized_masks_are_never_taken():
    found = candidates(box(0, 0, 40, 40), box(0, 0, 40, 39))
    choice = choose(found, judge(found, left_half_map()), Rules("predicted_iou", 0.0, 0.9))
    assert choice.index is None
    assert choice.reasons == ("no_candidate:background_sized",)


def test_empty_candidates_and_disagreement_are_answers():
    nothing = candidates(box(0, 0, 0, 0))
    judged = judge(nothing, left_half_map())
    assert choose(nothing, judged, Rules("agreement", 0.001, 0.9)).reasons == ("no_candidate:empty",)
    wrong = candidates(box(0, 20, 40, 40))
    choice = choose(wrong, judge(wrong, left_half_map()), Rules("agreement", 0.0, 0.9))
    assert (choice.index, choice.reasons) == (None, ("no_candidate:disagrees_with_relevance",))


def test_unstable_masks_lose_to_stable_ones_that_agree_as_well():
    found = candidates(box(0, 0, 40, 20), box(0, 0, 40, 20), stability=[0.3, 0.9])
    assert choose(found, judge(found, left_half_map()), Rules("agreement", 0.0, 0.9)).index == 1


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


def points(*labels, sure=1.0, reason="made up"):
    xy = np.array([[5, 5], [25, 25]], np.float32)[: len(labels)].reshape(-1, 2)
    return PointSet(xy, np.array(labels, np.int8), sure, (reason,))


class Halves:
    """A SAM that knows the image's halves: a positive point at (5, 5) is the left, else the right one."""

    fingerprint = "halves"

    def __init__(self):
        self.asked = []

    def embed(self, image):
        return "an embedding"

    def predict(self, embedding, prompts):
        assert embedding == "an embedding"
        self.asked.append(len(prompts))
        halves = box(0, 0, 40, 20), box(0, 20, 40, 40)
        return [candidates(halves[0 if p.labels[0] == 1 else 1], box(0, 0, 40, 40)) for p in prompts]


RULES = Rules("agreement", 0.0, 0.9)


def flat_but(x):
    values = np.full((4, 4), 0.2, np.float32)
    values[1, x] = 1
    return RelevanceMap(values, SIDE, SIDE)


def two_peaks():
    both = np.array([[1, 0, 0, 1]] * 4, np.float32) + np.eye(4, dtype=np.float32) / 9
    return RelevanceMap(both, SIDE, SIDE)


def test_the_sets_of_all_sentences_are_asked_at_once_and_the_surest_that_fits_wins():
    sam, both = Halves(), two_peaks()
    left, right = points(1, 0, sure=0.3), points(0, 1, sure=0.6)
    sentences = [[Prompt(right, both), Prompt(left, both)], [Prompt(left, left_half_map())]]
    first, second = ask(sam, lambda: sam.embed(None), sentences, [both, left_half_map()], RULES)
    assert sam.asked == [2], "the left points are asked once for both sentences"
    assert first.of_set == (0, 0, 1, 1)
    assert first.sure == pytest.approx((0.6, 0.3))
    assert len(first.candidates.rles) == len(first.judged) == 4
    assert second.points is left
    np.testing.assert_array_equal(rle.decode(second.chosen), box(0, 0, 40, 20))


def test_a_candidate_is_to_fit_what_its_own_points_are_about():
    """The sentence's map likes both halves alike; the set was about the left one."""
    sam, both = Halves(), two_peaks()
    [answer] = ask(sam, lambda: sam.embed(None), [[Prompt(points(1, 0), left_half_map())]], [both], RULES)
    assert answer.judged[0].fit == pytest.approx(1)
    assert abs(answer.judged[0].agreement) < 0.1
    np.testing.assert_array_equal(rle.decode(answer.chosen), box(0, 0, 40, 20))


def test_how_sure_is_asked_again_of_what_sam_made():
    sam, both = Halves(), two_peaks()
    right = RelevanceMap(np.ascontiguousarray(left_half_map().values[:, ::-1]), SIDE, SIDE)
    sets = [Prompt(points(0, 1, sure=0.9), right), Prompt(points(1, 0, sure=0.1), left_half_map())]
    seen = []

    def look(sentence, covers):
        seen.append((sentence, covers))
        return [0.2, 0.8]

    [answer] = ask(sam, lambda: sam.embed(None), [sets], [both], RULES, look)
    [(sentence, covers)] = seen
    assert sentence == 0
    np.testing.assert_allclose(covers, [right.values, left_half_map().values])
    assert answer.sure == (0.2, 0.8)
    np.testing.assert_array_equal(rle.decode(answer.chosen), box(0, 0, 40, 20))


@pytest.mark.parametrize(("sureness", "expected"), [(None, 1), ([0.9, 0.2], 0), ([0.5, 0.5], 1)])
def test_how_sure_a_set_is_weighs_against_agreement(sureness, expected):
    found = candidates(box(0, 0, 40, 30), box(0, 0, 40, 20))
    assert choose(found, judge(found, left_half_map()), RULES, sureness).index == expected


def test_a_thing_that_two_sets_found_is_as_sure_as_both():
    found = candidates(box(0, 0, 40, 20), box(0, 0, 40, 40), box(0, 0, 38, 20), box(0, 20, 40, 40))
    sets, sure, of_set = (points(1), points(1), points(1)), (0.4, 0.25, 0.35), (0, 0, 1, 2)
    answer = Answer(sets, sure, of_set, found, (), Choice(2, ()))
    assert answer.sureness == pytest.approx(0.65)
    assert replace(answer, choice=Choice(3, ())).sureness == pytest.approx(0.35)
    assert replace(answer, choice=Choice(None, ())).sureness == 0


def test_without_a_positive_point_the_image_is_not_looked_at():
    def never():
        raise AssertionError("embedded for nothing")

    maps = [flat_but(0), flat_but(3)]
    asked = points(reason="no_evidence"), points(0, 0, reason="all negative")
    sentences = [[Prompt(p, m)] for p, m in zip(asked, maps, strict=True)]
    found = ask(Halves(), never, sentences, maps, RULES)
    assert [answer.choice.reasons for answer in found] == [("no_evidence",), ("all negative",)]
    assert all(answer.choice.index is None and answer.candidates.rles == () for answer in found)
