"""What the generator learns from, on hand-made sets."""

import numpy as np
import pytest
import torch

from ppt.points.generator import IGNORED, NEGATIVE, POSITIVE, PointSets
from ppt.points.lessons import Lesson
from ppt.points.losses import point_losses


def thing(*points: tuple[float, float, int]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([p[:2] for p in points], np.float32), np.array([p[2] for p in points], np.int64)


def sets_at(xy: list[list[list[float]]], classes: list[list[int]], confidence: list[float]) -> PointSets:
    """One pair's sets, sure of their classes."""
    where = torch.tensor([xy], requires_grad=True)
    logits = torch.nn.functional.one_hot(torch.tensor([classes]), 3).float() * 30
    looks = torch.zeros(*where.shape[:3], 4)
    return PointSets(where, logits.requires_grad_(), looks, torch.tensor([confidence], requires_grad=True))


LEFT = thing((0.2, 0.5, POSITIVE), (0.5, 0.5, NEGATIVE))
RIGHT = thing((0.8, 0.5, POSITIVE), (0.5, 0.5, NEGATIVE))
FOUND = [[[0.5, 0.5], [0.8, 0.5], [0.1, 0.1]], [[0.2, 0.5], [0.5, 0.5], [0.9, 0.9]]]
SAID = [[NEGATIVE, POSITIVE, IGNORED], [POSITIVE, NEGATIVE, IGNORED]]


def test_what_was_found_and_meant_costs_nothing():
    losses = point_losses(sets_at(FOUND, SAID, [-20.0, 20.0]), [Lesson([LEFT, RIGHT])])
    assert losses.total(1.0, 1.0, 1.0).item() == pytest.approx(0, abs=1e-6)


def test_meaning_the_other_one_costs_confidence_alone():
    losses = point_losses(sets_at(FOUND, SAID, [-20.0, 20.0]), [Lesson([RIGHT, LEFT])])
    assert losses.distance.item() == pytest.approx(0, abs=1e-6)
    assert losses.classes.item() == pytest.approx(0, abs=1e-6)
    assert losses.confidence.item() == pytest.approx(40)


def test_distance_and_class_by_hand():
    off = [[[0.5, 0.5], [0.7, 0.5], [0.1, 0.1]], FOUND[1]]
    said = [[NEGATIVE, POSITIVE, POSITIVE], SAID[1]]
    losses = point_losses(sets_at(off, said, [0.0, 0.0]), [Lesson([LEFT, RIGHT])])
    assert losses.distance.item() == pytest.approx(0.1 / 4)
    assert losses.classes.item() == pytest.approx(30 / 6)
    assert losses.confidence.item() == pytest.approx(np.log(2))


def test_a_set_without_a_thing_is_not_taught_points():
    sets = sets_at(FOUND, [[POSITIVE] * 3, SAID[1]], [0.0, 0.0])
    losses = point_losses(sets, [Lesson([LEFT])])
    losses.total(1.0, 1.0, 1.0).backward()
    assert losses.classes.item() == pytest.approx(0, abs=1e-6)
    assert (sets.classes.grad[0, 0] == 0).all()
    assert (sets.confidence.grad != 0).all()


def test_a_lesson_weighs_as_much_as_it_is_sure():
    one, other = sets_at(FOUND, SAID, [0.0, 9.0]), sets_at(FOUND, SAID, [0.0, 0.0])
    both = PointSets(
        *(torch.cat([getattr(s, n) for s in (one, other)]) for n in ("xy", "classes", "looks", "confidence"))
    )
    losses = point_losses(both, [Lesson([LEFT, RIGHT], 0.25), Lesson([LEFT, RIGHT], 0.75)])
    expected = 0.25 * np.log1p(np.exp(-9)) + 0.75 * np.log(2)
    assert losses.confidence.item() == pytest.approx(expected, rel=1e-5)


def test_lessons_nobody_believes_teach_nothing():
    sets = sets_at(FOUND, SAID, [0.0, 0.0])
    losses = point_losses(sets, [Lesson([LEFT], 0.0)])
    assert losses.total(1.0, 1.0, 1.0).item() == 0
