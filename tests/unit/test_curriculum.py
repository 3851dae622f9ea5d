"""The curriculum: what is open when, who is let in, and who loses a mask to another."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppt.curriculum import RAMP, SOURCES, Curriculum, Opening, confidence, ordered, taken_back

THREE = ordered("curriculum", SOURCES, [1.0, 2.0, 2.0])


@given(st.floats(0, 1), st.sampled_from(["curriculum", "together", "reversed"]))
def test_shares_sum_to_one(progress, order):
    shares = ordered(order, SOURCES, [1.0, 2.0, 3.0]).shares(progress)
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) >= 0


def test_sources_open_one_after_the_other():
    assert THREE.shares(0.0) == {"object_centric": 1, "mosaic": 0, "referring": 0}
    assert THREE.shares(0.19)["mosaic"] == 0
    half = THREE.shares(0.2 + RAMP / 2)
    assert half["mosaic"] == pytest.approx(1 / 2)
    assert THREE.shares(1.0) == pytest.approx({"object_centric": 0.2, "mosaic": 0.4, "referring": 0.4})


def test_other_orders():
    assert ordered("together", SOURCES, [1.0, 1.0, 2.0]).shares(0.0) == {
        "object_centric": 0.25,
        "mosaic": 0.25,
        "referring": 0.5,
    }
    assert ordered("reversed", SOURCES, [1.0, 1.0, 1.0]).shares(0.0)["referring"] == 1


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


def test_confidence_by_hand():
    one = [np.array([value]) for value in (0.81, 1.0, 1.0, 1.0)]
    assert confidence(*one) == pytest.approx([0.81**0.25])
    assert confidence(*[np.array([v]) for v in (0.9, 0.9, -0.2, 0.9)]) == [0]
    assert confidence(*[np.array([v]) for v in (1.2, 1.0, 1.0, 1.0)]) == [1]
    assert confidence(*[np.array([v]) for v in (float("nan"), 1.0, 1.0, 1.0)]) == [0]


def test_the_less_confident_of_two_different_sentences_loses_the_mask():
    overlap = np.array([[1, 0.95, 0.1], [0.95, 1, 0.1], [0.1, 0.1, 1]])
    different = np.eye(3)
    sure = np.array([0.5, 0.8, 0.3])
    assert taken_back(overlap, different, sure, 0.9).tolist() == [True, False, False]
    assert not taken_back(overlap, np.ones((3, 3)), sure, 0.9).any(), "paraphrases share it"


def test_a_sentence_that_lost_its_mask_takes_none_from_others():
    overlap = np.array([[1, 0.95, 0.2], [0.95, 1, 0.95], [0.2, 0.95, 1]])
    assert taken_back(overlap, np.eye(3), np.array([0.9, 0.8, 0.7]), 0.9).tolist() == [False, True, False]
