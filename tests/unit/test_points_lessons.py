"""Lessons: the thing that is meant first, points in shares of the image, and rows that keep them."""

import numpy as np
import pytest

from ppt.points.generator import NEGATIVE, POSITIVE
from ppt.points.lessons import Lesson, make_lesson
from ppt.types import RelevanceMap

FLAT = RelevanceMap(np.zeros((3, 4), np.float32), 60, 80)


def boxes() -> list[np.ndarray]:
    left, right, nothing = (np.zeros((60, 80), bool) for _ in range(3))
    left[20:41, 10:31] = True
    right[20:41, 50:71] = True
    return [left, nothing, right]


def test_the_thing_that_is_meant_comes_first_and_the_others_are_its_negatives():
    lesson = make_lesson(boxes(), 2, FLAT, positives=1, negatives=1, sure=0.7)
    assert lesson.sure == 0.7
    (right, right_classes), (left, left_classes) = lesson.things
    centres = (np.array([[60, 30], [20, 30]]) + 0.5) / [80, 60]
    np.testing.assert_allclose(right, centres, atol=1e-6)
    np.testing.assert_allclose(left, centres[::-1], atol=1e-6)
    assert right_classes.tolist() == left_classes.tolist() == [POSITIVE, NEGATIVE]


def test_a_row_keeps_the_lesson():
    lesson = make_lesson(boxes(), 0, FLAT, positives=3, negatives=2, sure=0.25)
    back = Lesson.from_json(lesson.to_json())
    assert back.sure == lesson.sure
    for (xy, classes), (other_xy, other_classes) in zip(back.things, lesson.things, strict=True):
        np.testing.assert_allclose(xy, other_xy, atol=1e-5)
        np.testing.assert_array_equal(classes, other_classes)
        assert (xy.dtype, classes.dtype) == (np.float32, np.int64)


def test_nothing_is_taught_of_an_empty_mask():
    with pytest.raises(ValueError, match="thing 1, whose mask is empty"):
        make_lesson(boxes(), 1, FLAT, positives=1, negatives=1)
