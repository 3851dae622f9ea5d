"""Matching against brute force."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ppt.points.generator import IGNORED, NEGATIVE, POSITIVE
from ppt.points.matching import DISTANCE_WEIGHT, match_points, match_things, target_classes
from ppt.types import PointSet


def draw(rng, *shape):
    logits = rng.normal(size=(*shape, 3))
    return rng.random((*shape, 2)), logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def cost_of(xy, log_classes, target, wanted):
    return DISTANCE_WEIGHT * np.abs(xy - target).sum() - log_classes[wanted] + log_classes[IGNORED]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**16), st.integers(1, 4), st.integers(1, 4))
def test_points_are_matched_as_the_cheapest_of_all_ways(seed, k, p):
    rng = np.random.default_rng(seed)
    xy, log_classes = draw(rng, k)
    targets, wanted = rng.random((p, 2)), rng.integers(0, 2, p)
    points, chosen = match_points(xy, log_classes, targets, wanted)
    m = min(k, p)
    assert len(points) == len(set(points)) == len(set(chosen)) == m

    def total(ways):
        return sum(cost_of(xy[i], log_classes[i], targets[j], wanted[j]) for i, j in ways)

    best = min(
        total(zip(a, b, strict=True))
        for a in itertools.combinations(range(k), m)
        for b in itertools.permutations(range(p), m)
    )
    assert total(zip(points, chosen, strict=True)) == pytest.approx(best)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**16), st.integers(1, 3), st.integers(1, 3))
def test_sets_are_matched_to_things_as_the_best_of_all_ways(seed, s, t):
    rng = torch.Generator().manual_seed(seed)
    shapes, covers, on = (torch.rand(shape, generator=rng) for shape in ((s, 7), (t, 7), (s, t)))
    found = match_things(shapes, covers, on)

    def worth(i, j):
        dice = 2 * (shapes[i] * covers[j]).sum() / (shapes[i].sum() + covers[j].sum())
        return float(dice + 2 * on[i, j])

    m = min(s, t)
    best = max(
        sum(worth(i, j) for i, j in zip(a, b, strict=True))
        for a in itertools.combinations(range(s), m)
        for b in itertools.permutations(range(t), m)
    )
    assert len(found) == m
    assert sum(worth(i, j) for i, j in found) == pytest.approx(best, abs=1e-4)


def test_of_two_points_at_one_place_the_one_that_says_the_class_is_taken():
    xy = np.array([[0.5, 0.5], [0.5, 0.5]])
    log_classes = np.log([[0.1, 0.8, 0.1], [0.8, 0.1, 0.1]])
    points, targets = match_points(xy, log_classes, np.array([[0.5, 0.5]]), np.array([POSITIVE]))
    assert (points.tolist(), targets.tolist()) == ([1], [0])


def test_sams_labels_become_classes():
    points = PointSet(np.zeros((3, 2), np.float32), np.array([0, -1, 1], np.int8), 1.0)
    assert target_classes(points).tolist() == [NEGATIVE, IGNORED, POSITIVE]
