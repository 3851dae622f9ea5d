"""Lessons: points in shares of the image, what things cover, and rows that keep them."""

import numpy as np
import pytest

from ppt.points.generator import NEGATIVE, POSITIVE
from ppt.points.lessons import Lesson, make_lesson, stored
from ppt.types import RelevanceMap

FLAT = RelevanceMap(np.zeros((3, 4), np.float32), 60, 80)


def boxes() -> list[np.ndarray]:
    left, right = (np.zeros((60, 80), bool) for _ in range(2))
    left[20:41, 10:31] = True
    right[20:41, 50:71] = True
    return [left, right]


def test_the_other_things_are_negatives_of_each():
    lesson = make_lesson(boxes(), 1, FLAT, positives=1, negatives=1, sure=0.7)
    assert (lesson.sure, lesson.meant, lesson.complete) == (0.7, 1, True)
    (left, left_classes), (right, right_classes) = lesson.things
    centres = (np.array([[20, 30], [60, 30]]) + 0.5) / [80, 60]
    np.testing.assert_allclose(left, centres, atol=1e-6)
    np.testing.assert_allclose(right, centres[::-1], atol=1e-6)
    assert right_classes.tolist() == left_classes.tolist() == [POSITIVE, NEGATIVE]


def test_what_a_thing_covers_is_on_the_maps_grid():
    lesson = make_lesson(boxes(), 0, FLAT, positives=1, negatives=1)
    assert lesson.covers.shape == (2, 3, 4)
    # Cells are of 20 x 20 pixels; the left box lies in columns 10 to 30 of rows 20 to 40.
    np.testing.assert_allclose(lesson.covers[0][1], [0.5, 0.55, 0, 0])


def test_a_row_and_a_tensor_keep_the_lesson():
    lesson = make_lesson(boxes(), 0, FLAT, positives=3, negatives=2, complete=False, sure=0.25)
    back = Lesson.from_row(lesson.to_row(), stored(lesson.covers))
    assert (back.sure, back.meant, back.complete) == (0.25, 0, False)
    np.testing.assert_allclose(back.covers, lesson.covers, atol=1 / 500)
    for (xy, classes), (other_xy, other_classes) in zip(back.things, lesson.things, strict=True):
        np.testing.assert_allclose(xy, other_xy, atol=1e-5)
        np.testing.assert_array_equal(classes, other_classes)
        assert (xy.dtype, classes.dtype) == (np.float32, np.int64)


def test_a_lesson_may_do_without_negatives():
    lesson = make_lesson(boxes(), 0, FLAT, positives=1, negatives=2).positive()
    assert [classes.tolist() for _, classes in lesson.things] == [[POSITIVE], [POSITIVE]]


def test_nothing_is_taught_of_an_empty_mask():
    with pytest.raises(ValueError, match=r"without a pixel: \[1\]"):
        make_lesson([boxes()[0], np.zeros((60, 80), bool)], 0, FLAT, positives=1, negatives=1)
