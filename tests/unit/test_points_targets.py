"""Target points: inside and outside by construction, deep, spread, and where the map tempts."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ppt.inside import inner_points
from ppt.points.targets import target_points
from ppt.types import RelevanceMap


def flat(height, width):
    return RelevanceMap(np.zeros((4, 4), np.float32), height, width)


def test_the_first_point_is_the_deepest_and_the_next_ones_are_spread():
    mask = np.zeros((40, 90), bool)
    mask[10:31, 5:86] = True
    (x, y), *others = inner_points(mask, 3)
    assert y == 20
    assert all(mask[b, a] for a, b in others)
    xs = sorted([x, *(a for a, _ in others)])
    assert xs[1] - xs[0] > 20
    assert xs[2] - xs[1] > 20


def test_a_pixel_has_one_point():
    mask = np.zeros((9, 9), bool)
    mask[4, 6] = True
    assert inner_points(mask, 3) == [(6, 4)]


def test_a_compact_thing_has_one_positive():
    y, x = np.indices((60, 60))
    assert inner_points(np.hypot(x - 30, y - 30) < 20, 3) == [(30, 30)]


def test_a_large_image_is_thinned_out_and_keeps_its_frame():
    mask = np.zeros((700, 1300), bool)
    mask[200:501, 100:401] = True
    found = target_points(mask, flat(700, 1300), 1, 1)
    np.testing.assert_allclose(found.xy[0], [250, 350], atol=9)
    assert not mask[tuple(found.xy[1].astype(int)[::-1])]


def test_what_would_vanish_is_not_thinned_out():
    mask = np.zeros((1000, 1000), bool)
    mask[501, 333] = True
    assert target_points(mask, flat(1000, 1000), 1, 0).xy.tolist() == [[333, 501]]


def test_negatives_alternate_between_what_tempts_and_the_ring():
    mask = np.zeros((80, 80), bool)
    mask[10:30, 10:30] = True
    values = np.zeros((8, 8), np.float32)
    values[2, 2] = 1.0  # on the object
    values[6, 6] = 0.9  # its twin
    found = target_points(mask, RelevanceMap(values, 80, 80), 2, 3)
    assert found.labels.tolist() == [1, 0, 0, 0]
    x, y = found.xy[1]
    assert (abs(x - 64.5) <= 5, abs(y - 64.5) <= 5) == (True, True)
    for x, y in found.xy[2:]:
        gap = np.hypot(max(10 - x, x - 29, 0), max(10 - y, y - 29, 0))
        assert 1 <= gap <= 0.3 * 20 + 1


def test_other_things_get_the_first_negatives():
    mask, first, second = (np.zeros((60, 90), bool) for _ in range(3))
    mask[20:40, 35:55], first[5:16, 5:16], second[20:41, 55:86] = True, True, True
    second |= mask  # what both claim is the thing's own
    found = target_points(mask, flat(60, 90), 1, 3, [first, second])
    assert found.labels.tolist() == [1, 0, 0, 0]
    assert found.xy[1].tolist() == [10, 10]
    x, y = found.xy[3].astype(int)
    assert (second & ~mask)[y, x]


def test_no_mask_no_points_and_no_room_no_negatives():
    empty = target_points(np.zeros((9, 9), bool), flat(9, 9), 3, 3)
    assert (len(empty.labels), empty.reasons) == (0, ("empty_mask",))
    full = target_points(np.ones((9, 9), bool), flat(9, 9), 3, 3)
    assert full.labels.tolist() == [1]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**16), st.integers(1, 5), st.integers(0, 5))
def test_positives_are_inside_and_negatives_outside(seed, positives, negatives):
    rng = np.random.default_rng(seed)
    height, width = (int(n) for n in rng.integers(4, 60, 2))
    mask = rng.random((height, width)) < rng.choice([0.02, 0.3, 0.9])
    values = rng.normal(size=(5, 7)).astype(np.float32)
    found = target_points(mask, RelevanceMap(values, height, width), positives, negatives)
    x, y = found.xy.astype(int).T
    assert mask[y[found.labels == 1], x[found.labels == 1]].all()
    assert not mask[y[found.labels == 0], x[found.labels == 0]].any()
    assert len(set(zip(x.tolist(), y.tolist(), strict=True))) == len(x)
    assert (found.labels == 1).sum() <= positives
    assert (found.labels == 0).sum() <= negatives
