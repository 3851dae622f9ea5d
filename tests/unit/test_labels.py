import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppt import rle
from ppt.labels import conflicts, edge, exclusions, label, rival, weigh

GOOD = {"predicted_iou": 0.81, "stability": 1.0, "agreement": 1.0, "peak": 3.0, "sure": 1.0}


def mask(left=0):
    drawn = np.zeros((10, 20), bool)
    drawn[2:8, left : left + 6] = True
    return rle.encode(drawn)


def made(id="a", text="the owl", segmentation=None, **scores):
    return label(
        id, "i.jpg", text, segmentation or mask(), {**GOOD, **scores}, ("chosen:agreement",), 0.5, 0.2
    )


def test_weight_is_the_geometric_mean_of_its_terms():
    assert weigh(GOOD) == pytest.approx(0.81**0.2, abs=1e-6)
    assert weigh({**GOOD, "peak": 1.5, "stability": 0.5}) == pytest.approx((0.81 * 0.25) ** 0.2, abs=1e-6)
    assert weigh({**GOOD, "sure": 0.3}) == pytest.approx((0.81 * 0.3) ** 0.2, abs=1e-6)


@given(st.fixed_dictionaries({name: st.floats(-1, 5) for name in GOOD}), st.sampled_from(sorted(GOOD)))
def test_weight_stays_in_range_and_never_falls_when_a_score_rises(scores, name):
    assert 0 <= weigh(scores) <= weigh({**scores, name: scores[name] + 0.5}) <= 1


def test_an_excluded_label_keeps_its_mask_and_weighs_nothing():
    found = made(stability=0.41)
    assert found.weight == 0
    assert found.segmentation == mask()
    assert found.reasons == ("chosen:agreement", "excluded:stability 0.41 < 0.5")


def test_every_failed_check_is_a_reason():
    scores = {**GOOD, "stability": 0.1, "agreement": 0.1}
    assert [r.split()[0] for r in exclusions(scores, 0.5, 0.2)] == [
        "excluded:stability",
        "excluded:agreement",
    ]
    assert exclusions(GOOD, 0.5, 0.2) == ()


def test_no_mask_is_an_answer():
    found = label("a", "i.jpg", "the owl", None, {"peak": 0.0, "sure": 0.0}, ("no_evidence",), 0.5, 0.2)
    assert (found.segmentation, found.weight, found.reasons) == (None, 0.0, ("no_evidence",))


def test_conflicts_name_each_other():
    labels = [made("a"), made("b", "the bus"), made("c", "the dog", mask(12)), made("d", "the owl")]
    assert conflicts(labels, 0.9) == {
        "a": ("same_mask_as:b",),
        "b": ("same_mask_as:a", "same_mask_as:d"),
        "d": ("same_mask_as:b",),
    }


@given(
    st.lists(st.tuples(st.integers(0, 14), st.sampled_from("abc")), max_size=12),
    st.sampled_from((0.3, 0.9, 1.0)),
)
def test_conflicts_are_those_of_every_pair_compared(drawn, overlap):
    """As a plain loop over all pairs finds them."""
    labels = [made(f"{n}", text, mask(left)) for n, (left, text) in enumerate(drawn)]
    expected = {}
    for one in labels:
        others = [
            other.id
            for other in labels
            if other is not one
            and other.text != one.text
            and rle.iou(one.segmentation, other.segmentation) >= overlap
        ]
        if others:
            expected[one.id] = tuple(f"same_mask_as:{other}" for other in others)
    assert conflicts(labels, overlap) == expected


def test_of_very_many_alike_twenty_are_named_and_the_rest_counted():
    labels = [made(f"{n}", f"owl {n % 50}") for n in range(100)]
    found = conflicts(labels, 0.9)
    assert found["1"][:2] == ("same_mask_as:0", "same_mask_as:2")
    assert (found["1"][-2:], len(found["1"])) == (("same_mask_as:20", "same_mask_as_others:78"), 21)


def test_the_rival_is_the_best_of_what_shows_another_thing():
    mask, near, apart = (np.zeros((10, 10), bool) for _ in range(3))
    mask[:5, :5], near[:5, :6], apart[6:, 6:] = True, True, True
    own, same, other = map(rle.encode, (mask, near, apart))
    assert rival(own, [(own, 0.9), (same, 0.8), (other, 0.4), (other, 0.3)]) == 0.4
    assert rival(own, [(own, 0.9), (same, 0.8)]) == 0
    assert rival(own, [(other, -0.4)]) == 0
    assert rival(own, []) == 0


def test_the_edge_is_what_a_mask_covers_of_the_outermost_pixels():
    mask = np.zeros((4, 6), bool)
    mask[:, :3] = True
    assert edge(rle.encode(mask)) == pytest.approx(8 / 16)
    assert edge(rle.encode(np.ones((4, 6), bool))) == 1
    inner = np.zeros((4, 6), bool)
    inner[1:3, 1:5] = True
    assert edge(rle.encode(inner)) == 0
    assert edge(rle.encode(np.ones((1, 3), bool))) == 1
