"""The toy maps: a target of 8 x 8 pixels, distractors of 8 x 8 and 10 x 24."""

import numpy as np
import pytest

from ppt.activation import NonTarget, intervals, non_target

SHAPE = (48, 48)


def box(top, left, height, width):
    mask = np.zeros(SHAPE, bool)
    mask[top : top + height, left : left + width] = True
    return mask


TARGET, NEAR, LARGE = box(2, 2, 8, 8), box(2, 30, 8, 8), box(30, 10, 10, 24)
OTHERS = [NEAR, LARGE]


def painted(target, near, large, rest=0):
    found = np.full(SHAPE, float(rest))
    found[TARGET], found[NEAR], found[LARGE] = target, near, large
    return found


def measured(*values, **rest):
    found = non_target(painted(*values, **rest), TARGET, OTHERS)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("activation", "mass", "density", "rectified", "point"),
    [
        (painted(1, 0, 0), 0, 0, 0, 0),
        (painted(1, 1, 0), 0.5, 0.5, 0.5, 0.5),
        (painted(1, 1, 1), 0.826, 0.5, 0.826, 0.826),
        (painted(0.9, 0.3, 0.3, 0.05), 0.613, 0.25, 0.583, 0),
        (painted(0.1, 0.9, 0, 0), 0.9, 0.9, 0.9, 1),
        (painted(0.5, 0.5, 0.5, 0.5), 0.826, 0.5, 0, 304 / 2304),
        (painted(0, 0, 0), 0, 0, 0, 304 / 2304),
    ],
    ids=["perfect", "one of two", "all of the name", "soft", "wrong one", "flat", "nothing"],
)
def test_toy_maps(activation, mass, density, rectified, point):
    found = non_target(activation, TARGET, OTHERS)
    got = (found.mass, found.density, found.rectified, found.wrong_point)
    assert got == pytest.approx((mass, density, rectified, point), abs=5e-4)
    assert found.flat == pytest.approx(304 / 368)


def test_masks_of_the_wrong_thing_of_several_and_of_none():
    assert (measured(1, 0, 0).wrong_mask, measured(1, 0, 0).several, measured(1, 0, 0).blank) == (0, 0, 0)
    assert (measured(0, 1, 0).wrong_mask, measured(0, 1, 0).several) == (1, 0)
    assert (measured(1, 0, 1).wrong_mask, measured(1, 0, 1).several) == (1, 1)
    assert (measured(0.5, 0.5, 0.5).wrong_mask, measured(0.5, 0.5, 0.5).blank) == (0, 1)


def test_what_a_distractor_shares_with_the_target_is_the_targets():
    found = non_target(painted(1, 0, 0), TARGET, [TARGET | NEAR])
    assert (found.density, found.mass) == (0, 0)


def test_without_a_distractor_of_size_or_a_target_there_is_nothing_to_measure():
    nothing = np.zeros(SHAPE, bool)
    assert non_target(painted(1, 1, 1), TARGET, []) is None
    assert non_target(painted(1, 1, 1), TARGET, [box(40, 40, 3, 3)]) is None  # 9 of 2304 pixels
    assert non_target(painted(1, 1, 1), TARGET, [TARGET]) is None
    assert non_target(painted(1, 1, 1), nothing, OTHERS) is None
    with pytest.raises(ValueError, match="an activation must be finite"):
        non_target(np.full(SHAPE, np.nan), TARGET, OTHERS)


def test_an_interval_is_over_images_and_the_mean_over_maps():
    clean = NonTarget(*[0.0] * 8)
    wrong = NonTarget(*[1.0] * 8)
    rng = np.random.default_rng(0)
    found = intervals([clean, clean, clean, wrong], ["a", "a", "a", "b"], rng)["density"]
    assert (found.mean, found.low, found.high) == (0.25, 0, 1)  # two images: all of one, or of the other
    many = intervals([clean, wrong] * 200, [str(i) for i in range(400)], rng)["density"]
    assert many.mean == 0.5
    assert 0.44 < many.low < 0.47
    assert 0.53 < many.high < 0.56
    with pytest.raises(ValueError, match="nothing to average"):
        intervals([], [], rng)
