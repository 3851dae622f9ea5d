"""Mosaics: what they show is where their masks say, and what is said of a thing is true of it alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppt.mosaics import APART, LARGER, Piece, make_mosaic, noun, sentences


def square(y: int, x: int, side: int, frame: int = 100) -> np.ndarray:
    mask = np.zeros((frame, frame), bool)
    mask[y : y + side, x : x + side] = True
    return mask


def said_of(masks, texts, target, kind) -> set[str]:
    """Every wording met in many draws."""
    found = set()
    for seed in range(60):
        for one in sentences(np.random.default_rng(seed), texts, masks):
            if (one.target, one.kind) == (target, kind):
                found.add(one.text)
    return found


def piece(colour: tuple[int, int, int], text: str) -> Piece:
    """A disc of one colour on gray."""
    rows, columns = np.indices((80, 96))
    mask = np.hypot(rows - 40, columns - 48) < 22
    image = np.full((80, 96, 3), 128, np.uint8)
    image[mask] = colour
    return Piece(image, mask, text)


PIECES = [
    piece((250, 20, 20), "a red ball"),
    piece((20, 250, 20), "the green ball"),
    piece((20, 20, 250), "blue disc"),
]


def test_nouns():
    assert noun("A red apple.") == "red apple"
    assert noun("the dog") == "dog"
    assert noun("owl") == "owl"
    assert noun("a") == "a"


def test_twins_are_placed_and_never_named():
    masks = [square(40, 5, 20), square(40, 70, 20)]
    texts = ["an owl", "the owl"]
    assert {s.kind for s in sentences(np.random.default_rng(0), texts, masks)} == {"position"}
    left, right = (said_of(masks, texts, i, "position") for i in (0, 1))
    assert "left owl" in left
    assert "the owl on the right" in right
    assert all("left" in text for text in left)
    assert all("right" in text for text in right)


def test_a_thing_without_its_like_is_named_placed_and_related():
    masks = [square(5, 40, 20), square(70, 40, 20)]
    texts = ["a cup", "a plate"]
    assert said_of(masks, texts, 0, "name") == {"a cup"}
    assert said_of(masks, texts, 0, "relation") == {"the cup above the plate", "the cup over the plate"}
    assert "lower plate" in said_of(masks, texts, 1, "position")
    assert said_of(masks, texts, 0, "size") == set()


def test_twins_of_clearly_different_size_are_sized():
    masks = [square(10, 10, 40), square(60, 70, 20)]
    assert "the smaller owl" in said_of(masks, ["owl", "owl"], 1, "size")
    assert "the bigger owl" in said_of(masks, ["owl", "owl"], 0, "size")
    near = [square(10, 10, 22), square(60, 70, 20)]
    assert LARGER * 20**2 > 22**2
    assert said_of(near, ["owl", "owl"], 1, "size") == set()


def test_the_middle_one_of_three():
    masks = [square(40, 5, 10), square(40, 45, 10), square(40, 85, 10)]
    assert "middle owl" in said_of(masks, ["owl"] * 3, 1, "position")


def test_a_relation_that_holds_for_a_twin_as_well_is_not_said():
    anchor, twin, other = square(80, 45, 10), square(5, 45, 10), square(40, 10, 10)
    texts = ["a plate", "a cup", "a cup"]
    assert said_of([anchor, twin, other], texts, 1, "relation") == set()


@given(
    st.lists(st.tuples(st.integers(0, 80), st.integers(0, 80), st.integers(4, 20)), min_size=2, max_size=4),
    st.integers(0, 99),
)
def test_what_is_said_of_place_is_true_of_one_alone(boxes, seed):
    masks = [square(*box) for box in boxes]
    texts = ["a cup" if i % 2 else "the mug" for i in range(len(masks))]
    centres = [np.argwhere(mask).mean(0) / 100 for mask in masks]
    ahead = {
        "left": (1, -1),
        "right": (1, 1),
        "top": (0, -1),
        "bottom": (0, 1),
        "upper": (0, -1),
        "lower": (0, 1),
    }
    for one in sentences(np.random.default_rng(seed), texts, masks):
        if one.kind != "position" or "middle" in one.text or "center" in one.text:
            continue
        word = next(w for w in ahead if w in one.text)
        axis, sign = ahead[word]
        same = [j for j in range(len(masks)) if j != one.target and noun(texts[j]) == noun(texts[one.target])]
        rivals = same or [j for j in range(len(masks)) if noun(texts[j]) != noun(texts[one.target])]
        assert rivals
        for j in rivals:
            assert sign * (centres[one.target][axis] - centres[j][axis]) > APART


@pytest.mark.parametrize("tiled", [True, False])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_masks_lie_on_their_things(count, tiled):
    hue = {"red ball": 0, "green ball": 1, "blue disc": 2}
    for seed in range(8):
        rng = np.random.default_rng(seed)
        mosaic = make_mosaic(rng, PIECES, count, twins=count > 3 or seed % 2 == 0, tiled=tiled, side=128)
        assert max(mosaic.image.shape) == 128
        assert mosaic.masks
        assert np.sum(mosaic.masks, axis=0).max() == 1, "things share a pixel"
        for one in mosaic.said:
            if one.kind == "name":
                colours = mosaic.image[mosaic.masks[one.target]].mean(0)
                assert colours.argmax() == hue[noun(one.text)]


@pytest.mark.parametrize("tiled", [True, False])
def test_with_twins_something_is_said_that_only_place_or_size_tells(tiled):
    kinds = []
    for seed in range(30):
        mosaic = make_mosaic(np.random.default_rng(seed), PIECES, 2, twins=True, tiled=tiled, side=128)
        kinds += [one.kind for one in mosaic.said if len(mosaic.masks) == 2]
    assert set(kinds) <= {"position", "size"}
    assert len(kinds) > 30


def test_a_mosaic_is_a_function_of_its_generator():
    one, two = (make_mosaic(np.random.default_rng(3), PIECES, 3, True, False, 96) for _ in range(2))
    assert (one.image == two.image).all()
    assert one.said == two.said


def test_too_few_pieces_are_an_error():
    with pytest.raises(ValueError, match="too few"):
        make_mosaic(np.random.default_rng(0), [], 2, False, True, 64)
    with pytest.raises(ValueError, match="too few"):
        make_mosaic(np.random.default_rng(0), PIECES, 1, True, True, 64)
