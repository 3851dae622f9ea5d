"""Quality without truth: by hand, and on labels whose truth is made up and never shown to it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from ppt import metrics
from ppt.quality import LEAST, band, outcome, quality, reasons, trust

NONE = float("nan")


def test_consent_rises_with_agreement_and_the_rest_is_arithmetic():
    agreement = np.array([0.2] * 50 + [0.8] * 50)
    second = np.array([0.9] * 31 + [0.1] * 19 + [0.9] * 50)
    found = trust(agreement, second)
    assert found.either == pytest.approx(0.9)  # they agree on 81 of 100
    alone = 0.62 / 0.9
    assert found.meant(np.array([0.2]), np.array([NONE])) == pytest.approx(alone)
    # Both right: 0.62. That this one is, and the other is not: 0.62 / 0.9 * 0.1; of all where not both are.
    assert found.meant(np.array([0.2]), np.array([0.1])) == pytest.approx(alone * 0.1 / 0.38)
    assert found.meant(np.array([0.2]), np.array([0.7])) == 1
    assert found.meant(np.array([0.8]), np.array([NONE])) == 1, "more than certain is certain"


def test_quality_is_both_factors_and_without_a_second_opinion_a_root():
    found = trust(np.array([0.2] * 50 + [0.8] * 50), np.array([0.9] * 31 + [0.1] * 19 + [0.9] * 50))
    ones = np.ones(1)
    assert quality(0.7 * ones, 0.2 * ones, 0.9 * ones, found) == pytest.approx(0.7)
    assert quality(0.7 * ones, 0.5**5 * ones, NONE * ones, None) == pytest.approx(0.35)
    assert quality(0.7 * ones, -ones, NONE * ones, None) == 0


def test_few_second_opinions_fit_nothing():
    some = np.linspace(0, 1, LEAST)
    assert trust(some, some) is not None
    assert trust(some, np.array([*some[:-1], NONE])) is None


@given(
    st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 1)), min_size=LEAST, max_size=80),
    st.floats(0, 1),
    st.lists(st.floats(-1, 1), min_size=2, max_size=5).map(sorted),
)
def test_it_is_a_chance_and_more_agreement_is_never_less(rows, second, agreements):
    agreement, seconds = np.array(rows).T
    found = trust(agreement, seconds)
    asked = np.array(agreements)
    for nearness in (second, NONE):
        meant = found.meant(asked, np.full(len(asked), nearness))
        assert ((meant >= 0) & (meant <= 1)).all()
        assert (np.diff(meant) >= -1e-12).all()
        worth = quality(np.ones(len(asked)), asked, np.full(len(asked), nearness), found)
        assert ((worth >= 0) & (worth <= 1)).all()


def test_it_means_what_it_says_where_the_opinions_err_apart():
    """2,000 labels, right more often where they agree with the map, and a second opinion that is right in 9
    of 10 cases whatever the label is.
    """
    rng = np.random.default_rng(3)
    agreement, stability = rng.uniform(0, 1, 2000), rng.uniform(0.6, 1, 2000)
    right = rng.random(2000) < 0.7 + 0.4 * np.minimum(agreement, 0.5)
    other = rng.random(2000) < right.mean()
    second = np.where(right & other, 0.9, 0.1)
    iou = np.where(right, stability, 0.0)
    found = quality(stability, agreement, second, trust(agreement, second))
    judged = metrics.ranking(found, iou, [band(one, 0.75, 0.5) for one in found])
    assert judged["error"] < 0.02
    assert judged["spearman"] > spearmanr(stability, iou)[0] + 0.1


def test_bands_and_reasons():
    found = [band(one, 0.75, 0.5) for one in (0.75, 0.7499, 0.5, 0.4999)]
    assert found == ["keep", "review", "review", "drop"]


def scores(stability=0.9, agreement=0.8, rival=0.1, edge=0.0):
    return {"stability": stability, "agreement": agreement, "rival": rival, "edge": edge}


def test_reasons_are_in_words_and_the_gravest_comes_first():
    assert reasons(scores(), 0.9, {}, 0.75) == ()
    assert reasons(scores(), None, {"mirrored": 0.5}, 0.75) == ()
    assert reasons(scores(0.6, 0.3, 0.29, 0.5), 0.02, {"mirrored": 0.1}, 0.75) == (
        "second_opinion:the segmenter means something else (IoU 0.02)",
        "rival:another thing fits the words as well (0.29 to 0.30)",
        "weak_agreement:agreement with the relevance map 0.30",
        "along_the_edge:it covers 50% of the image's edge",
        "unsteady_outline:stability 0.60",
    )
    assert reasons(scores(), None, {"mirrored": 0.1, "smaller": 0.6, "reworded": 0.4}, 0.75) == (
        "wavering:agreement 0.80, seen otherwise less (mirrored 0.10, reworded 0.40)",
    )


def test_words_may_mean_one_thing_or_several_or_nothing():
    found = [
        outcome(scores(agreement=a, rival=r)) for a, r in ((0.8, 0.71), (0.8, 0.73), (0.5, 0.9), (0.5, 0.0))
    ]
    assert found == ["one", "several", "several", "one"]
    assert outcome(scores(agreement=-0.1, rival=0.0)) == "one", "nothing else fits either"
    assert outcome(scores(agreement=-0.1, rival=0.2)) == "one"
