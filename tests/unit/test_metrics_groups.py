"""Groups of sentences: their borders, and what is in none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppt import rle
from ppt.metrics import groups


def area(pixels):
    mask = np.zeros((100, 100), bool)
    mask.ravel()[:pixels] = True
    return rle.encode(mask)


@pytest.mark.parametrize(
    ("pixels", "size"),
    [(0, ""), (1, "small"), (1023, "small"), (1024, "medium"), (9215, "medium"), (9216, "large")],
)
def test_sizes_are_cocos_in_pixels_of_the_original(pixels, size):
    assert groups.size(area(pixels)) == size


@pytest.mark.parametrize(
    ("words", "length"),
    [
        (0, ""),
        (1, "1-2"),
        (2, "1-2"),
        (3, "3-5"),
        (5, "3-5"),
        (6, "6-10"),
        (10, "6-10"),
        (11, "11+"),
        (40, "11+"),
    ],
)
def test_lengths_are_counted_in_words(words, length):
    assert groups.length("  ".join(["cow"] * words)) == length


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("the man on the Left", "positional"),
        ("second-closest, to us", "positional"),
        ("the cow next to the gate", "positional"),
        ("left.", "positional"),
        ("the man with the red coat on", "not positional"),
        ("a leftover sandwich", "not positional"),
        ("der Mann links", "not positional"),
        ("  ", ""),
    ],
)
def test_a_sentence_says_where_by_whole_words(text, position):
    assert groups.position(text) == position


def test_distractors_are_counted_where_they_are_known():
    assert [groups.rivals(count) for count in (0, 1, 2, 3, 9)] == ["none", "1", "2", "3+", "3+"]
    assert groups.of(area(1), "the cow", None) == {
        "size": "small", "length": "1-2", "position": "not positional", "distractors": "",
    }  # fmt: skip
    assert groups.of(area(1), "", ())["distractors"] == "none"


@given(st.permutations(["11+", "3-5", "1-2", "6-10"]), st.permutations(["large", "medium", "small", "wide"]))
def test_names_are_ranked_as_they_read(lengths, sizes):
    assert sorted(lengths, key=groups.rank) == ["1-2", "3-5", "6-10", "11+"]
    assert sorted(sizes, key=groups.rank) == ["wide", "small", "medium", "large"]
