"""Sentences: each true of exactly one object by the scene's geometry, and none where nothing tells apart."""

import numpy as np
import pytest
from fixtures.cutouts import scene_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ppt.scenes.compose import Instance, Scene
from ppt.scenes.sentences import CLEARLY_APART, KINDS, OPPOSITE, expressions, swapped
from ppt.seeding import generator

SEEDS = st.integers(0, 10_000)


def placed(name, x, y, size=10.0, colour=None):
    """An object of a scene of 100 x 100 pixels, for the sentences, which look at no pixel."""
    return Instance(0, name, colour, np.zeros((100, 100), bool), (float(x), float(y)), float(size))


def said(*instances, tries=40):
    """Every sentence that a scene of these objects may get, as {(text, target, kind)}."""
    scene = Scene(np.zeros((100, 100, 3), np.uint8), instances)
    found = set()
    for seed in range(tries):
        rng = generator(seed, "test", "sentences")
        found |= {(e.text, e.target, e.kind) for e in expressions(rng, scene)}
    return found


# --- sentences


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 6), st.booleans())
def test_every_sentence_is_true_of_exactly_one_object(seed, objects, twins):
    scene = scene_of(seed, objects, twins)
    for expression in expressions(generator(seed, "test", "say"), scene):
        assert expression.kind in KINDS
        true = [i for i, _ in enumerate(scene.instances) if holds(expression.text, i, scene)]
        assert true == [expression.target], (expression, [i.name for i in scene.instances])


def holds(text, index, scene):
    """Whether a sentence is true of an object, judged from names, centres, sizes and colours, by a reader."""
    target, height, width = scene.instances[index], *scene.image.shape[:2]
    words = text.removeprefix("the ").removeprefix("a ").removeprefix("an ")
    twins = [o for i, o in enumerate(scene.instances) if i != index and o.name == target.name]
    for relation, axis, sign in (
        (" to the left of the ", 0, -1), (" to the right of the ", 0, 1),
        (" above the ", 1, -1), (" below the ", 1, 1),
    ):  # fmt: skip
        if relation in words:
            name, anchor = words.split(relation)
            [there] = [o for o in scene.instances if o.name == anchor]
            apart = sign * (target.centre_xy[axis] - there.centre_xy[axis]) / (width, height)[axis]
            return target.name == name and apart > 0.05
    for size, larger in (("bigger ", True), ("larger ", True), ("smaller ", False)):
        if words.startswith(size):
            same = words.removeprefix(size) == target.name
            return same and all((target.size > t.size) == larger for t in twins)
    for side in ("left", "right", "top", "bottom"):
        for phrase in (
            f"{side} {target.name}",
            f"{target.name} on the {side}",
            f"{target.name} at the {side}",
        ):
            if words == phrase:
                rivals = twins or [o for o in scene.instances if o is not target]
                axis, sign = (0 if side in ("left", "right") else 1), (-1 if side in ("left", "top") else 1)
                return all(sign * (target.centre_xy[axis] - o.centre_xy[axis]) > 0 for o in rivals)
    return words in (target.name, f"{target.colour} {target.name}")


def test_one_object_is_named_and_nothing_more_is_said():
    texts = {text for text, _, _ in said(placed("owl", 50, 50, colour="brown"))}
    assert texts == {"owl", "the owl", "an owl", "brown owl", "the brown owl", "a brown owl"}


def test_twins_are_never_named_by_their_name_alone():
    left, right = placed("cat", 20, 50), placed("cat", 80, 50)
    found = said(left, right)
    texts = {text: target for text, target, _ in found}
    assert texts == {"the cat on the left": 0, "left cat": 0, "the cat on the right": 1, "right cat": 1}
    assert {kind for _, _, kind in found} == {"position"}


def test_twins_too_close_and_alike_get_no_sentence():
    near = 50 + 99 * CLEARLY_APART
    assert said(placed("cat", 50, 50), placed("cat", near, 50)) == set()


def test_sizes_are_told_only_when_clearly_different():
    assert said(placed("cat", 50, 50, 10), placed("cat", 50, 50, 12.9)) == set()
    found = {
        (text, target) for text, target, _ in said(placed("cat", 50, 50, 10), placed("cat", 50, 50, 13.1))
    }
    assert found == {("the smaller cat", 0), ("the bigger cat", 1), ("the larger cat", 1)}


def test_colour_tells_twins_apart_but_not_where_one_has_none():
    red, blue = placed("car", 50, 50, colour="red"), placed("car", 50, 50, colour="blue")
    texts = {text: target for text, target, _ in said(red, blue)}
    assert texts["the red car"] == 0
    assert texts["the blue car"] == 1
    assert said(red, placed("car", 50, 50)) == set()


def test_a_name_that_speaks_of_a_colour_gets_no_second_one():
    texts = {text for text, _, _ in said(placed("red fox", 50, 50, colour="brown"))}
    assert texts == {"red fox", "the red fox", "a red fox"}


def test_relations_name_the_twin_they_are_true_of():
    instances = placed("dog", 20, 50), placed("dog", 80, 50), placed("bus", 50, 50)
    relations = {(text, target) for text, target, kind in said(*instances) if kind == "relation"}
    assert relations == {("the dog to the left of the bus", 0), ("the dog to the right of the bus", 1)}
    above, below = placed("dog", 50, 20), placed("dog", 50, 80)
    relations = {
        (text, target)
        for text, target, kind in said(above, below, placed("bus", 50, 50))
        if kind == "relation"
    }
    assert relations == {("the dog above the bus", 0), ("the dog below the bus", 1)}


def test_a_relation_needs_an_anchor_there_is_one_of():
    pair = placed("bus", 40, 50), placed("bus", 60, 50)
    assert "relation" not in {
        kind for _, _, kind in said(placed("dog", 10, 50), placed("dog", 90, 50), *pair)
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the dog below the bus", "the dog above the bus"),
        ("left owl", "right owl"),
        ("the cat at the top", "the cat at the bottom"),
        ("the dog to the left of the cup on the right", "the dog to the right of the cup on the right"),
        ("a red apple", None),
        ("the lefty", None),
    ],
)
def test_swapped_turns_the_first_word_of_place(text, expected):
    assert swapped(text) == expected


def test_opposites_come_in_pairs():
    assert all(OPPOSITE[OPPOSITE[word]] == word for word in OPPOSITE)
