"""The curriculum: what is open when, who is let in, and who loses a mask to another."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppt.curriculum import MOMENTS, RAMP, SOURCES, Curriculum, Opening, confidence, ordered, taken_back

THREE = ordered("easiest_first", SOURCES)


@given(st.floats(0, 1), st.sampled_from(["easiest_first", "together", "hardest_first"]))
def test_shares_sum_to_one(progress, order):
    shares = ordered(order, SOURCES).shares(progress)
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) >= 0


def test_sources_open_at_their_moments():
    at = MOMENTS["referring"]
    assert THREE.shares(0.0) == {"object_centric": 0.2, "mosaic": 0.8, "referring": 0}
    assert THREE.shares(at - 0.01)["referring"] == 0
    assert THREE.shares(at + RAMP / 2)["referring"] == pytest.approx(1 / 6)  # half of its 2 against 5
    assert THREE.shares(1.0) == pytest.approx({"object_centric": 1 / 7, "mosaic": 4 / 7, "referring": 2 / 7})


def test_other_orders():
    assert ordered("together", SOURCES).shares(0.0) == THREE.shares(1.0)
    backwards = ordered("hardest_first", SOURCES)
    assert backwards.shares(0.0)["referring"] == pytest.approx(1 / 3)
    assert backwards.shares(0.3)["object_centric"] == 0


def test_the_easiest_source_there_is_opens_at_once():
    assert ordered("easiest_first", ["mosaic", "referring"]).shares(0.0) == {"mosaic": 1, "referring": 0}
    assert ordered("easiest_first", ["referring"]).shares(0.0) == {"referring": 1}


def test_the_most_confident_are_let_in_first():
    sure = np.array([0.2, 0.9, 0.5, 0.7, 0.0])
    curriculum = Curriculum((Opening("object_centric", 0.0, 1.0), Opening("referring", 0.5, 1.0)), 0.4, 1.0)
    assert not curriculum.admitted(0.49, sure).any()
    assert curriculum.admitted(0.5, sure).tolist() == [False, True, False, True, False]
    assert curriculum.admitted(1.0, sure).tolist() == [True, True, True, True, False]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0, 1), st.floats(0, 1))
def test_who_is_in_stays_in_as_training_goes_on(sure, one, two):
    earlier, later = sorted([one, two])
    first, second = (THREE.admitted(p, np.array(sure)) for p in (earlier, later))
    assert (second | ~first).all()


@pytest.mark.parametrize(
    ("openings", "share", "what"),
    [
        ((), (0.3, 0.8), "at least one"),
        ((Opening("mosaic", 0.0, 1.0), Opening("mosaic", 0.5, 1.0)), (0.3, 0.8), "every source once"),
        ((Opening("mosaic", 0.2, 1.0),), (0.3, 0.8), "no source is open"),
        ((Opening("mosaic", 0.0, 1.0),), (0.9, 0.8), "first <= last"),
    ],
)
def test_what_no_curriculum_is(openings, share, what):
    with pytest.raises(ValueError, match=what):
        Curriculum(openings, *share)


def test_openings_are_checked():
    with pytest.raises(ValueError, match="not in"):
        Opening("mosaic", 1.0, 1.0)
    with pytest.raises(ValueError, match="positive"):
        Opening("mosaic", 0.0, 0.0)


@pytest.mark.parametrize(
    ("witnesses", "expected"),
    [
        ((0.81, 1.0), 0.9),
        ((0.9, -0.2), 0.0),
        ((1.2, 1.0), 1.0),
        ((float("nan"), 1.0), 0.0),
    ],
)
def test_confidence_by_hand(witnesses, expected):
    assert confidence(np.array([witnesses])) == pytest.approx([expected])


def test_the_less_confident_of_two_different_sentences_loses_the_mask():
    overlap = np.array([[1, 0.95, 0.1], [0.95, 1, 0.1], [0.1, 0.1, 1]])
    different = np.eye(3)
    sure = np.array([0.5, 0.8, 0.3])
    assert taken_back(overlap, different, sure, 0.9).tolist() == [True, False, False]
    assert not taken_back(overlap, np.ones((3, 3)), sure, 0.9).any(), "paraphrases share it"


def test_a_sentence_that_lost_its_mask_takes_none_from_others():
    overlap = np.array([[1, 0.95, 0.2], [0.95, 1, 0.95], [0.2, 0.95, 1]])
    assert taken_back(overlap, np.eye(3), np.array([0.9, 0.8, 0.7]), 0.9).tolist() == [False, True, False]
