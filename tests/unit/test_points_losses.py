"""What the generator learns from, on hand-made sets."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from ppt.points.generator import IGNORED, NEGATIVE, POSITIVE, PointSets
from ppt.points.judge import Panel
from ppt.points.lessons import Lesson
from ppt.points.losses import confidence_loss, covers_of, point_losses
from ppt.points.reading import read
from ppt.points.scene import Scene, cell_centres

ROWS, COLUMNS = 1, 10
XY = torch.from_numpy(cell_centres(ROWS, COLUMNS))
LEFT_CELLS, RIGHT_CELLS = [1, 2], [7, 8]


def scene(pairs: int = 1) -> Scene:
    rng = torch.Generator().manual_seed(0)
    return Scene(
        torch.randn(pairs, ROWS, COLUMNS, 6, generator=rng),
        torch.rand(pairs, ROWS, COLUMNS, generator=rng),
        XY.expand(pairs, -1, -1, -1),
        torch.ones(pairs, ROWS, COLUMNS, dtype=torch.bool),
        torch.randn(pairs, 3, 6, generator=rng),
        torch.ones(pairs, 3, dtype=torch.bool),
    )


def thing(*points: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Points at (cell, class)."""
    xy = XY[0, [cell for cell, _ in points]].numpy()
    return xy, np.array([c for _, c in points], np.int64)


LEFT, RIGHT = thing((1, POSITIVE), (4, NEGATIVE)), thing((8, POSITIVE), (4, NEGATIVE))


def lesson(meant: int = 0, **changes) -> Lesson:
    covers = np.zeros((2, ROWS, COLUMNS), np.float32)
    covers[0, 0, LEFT_CELLS], covers[1, 0, RIGHT_CELLS] = 1, 1
    return replace(Lesson([LEFT, RIGHT], covers, meant), **changes)


def sets_at(cells: list[list[int]], classes: list[list[int]]) -> PointSets:
    """One pair's sets, sure of everything; set 0 is about the right thing, set 1 about the left one."""
    looks = torch.nn.functional.one_hot(torch.tensor([cells]), COLUMNS).float()
    shapes = torch.full((1, len(cells), COLUMNS), -30.0)
    shapes[0, 0, RIGHT_CELLS], shapes[0, 1, LEFT_CELLS] = 30, 30
    middles = torch.full((1, COLUMNS), -30.0)
    middles[0, [1, 8]] = 30
    return PointSets(
        (looks @ XY[0]).requires_grad_(),
        (torch.nn.functional.one_hot(torch.tensor([classes]), 3).float() * 30).requires_grad_(),
        looks,
        shapes.requires_grad_(),
        torch.tensor([[row[0] for row in cells]]),
        middles,
    )


FOUND = [[8, 4, 5], [1, 4, 5]]
SAID = [[POSITIVE, NEGATIVE, IGNORED], [POSITIVE, NEGATIVE, IGNORED]]
NOTHING = pytest.approx(0, abs=1e-5)


def test_what_was_found_and_meant_costs_nothing():
    losses = point_losses(sets_at(FOUND, SAID), scene(), [lesson(0)])
    for field in fields(losses):
        if field.name != "look":  # a blurred target costs its own entropy
            assert getattr(losses, field.name).item() == NOTHING, field.name


def test_distance_and_class_by_hand():
    # The right set's negative lies one cell off but outside, and its third point claims to be positive.
    off = sets_at([[8, 5, 4], FOUND[1]], [[POSITIVE, NEGATIVE, POSITIVE], SAID[1]])
    losses = point_losses(off, scene(), [lesson(0)])
    assert losses.distance.item() == pytest.approx(0.1 / 2)
    assert losses.classes.item() == pytest.approx(30 / 4)


@pytest.mark.parametrize(("ignore", "expected"), [(True, IGNORED), (False, POSITIVE)])
def test_a_point_says_what_it_is_where_it_is(ignore, expected):
    """Matched to the right thing's second positive, it came to lie outside of it."""
    two = replace(lesson(0), things=[LEFT, thing((8, POSITIVE), (7, POSITIVE), (4, NEGATIVE))])
    astray = sets_at([[8, 6, 4], FOUND[1]], [[POSITIVE, POSITIVE, NEGATIVE], SAID[1]])
    point_losses(astray, scene(), [two], ignore).classes.backward()
    pulled = astray.classes.grad[0, 0, 1].argmin()
    cost = point_losses(astray, scene(), [two], ignore).classes.item()
    assert (pulled == expected) or cost == NOTHING
    assert (cost == NOTHING) == (expected == POSITIVE)


def test_an_anchor_is_not_taught_what_it_is():
    sets = sets_at(FOUND, [[NEGATIVE, NEGATIVE, IGNORED], SAID[1]])
    losses = point_losses(sets, scene(), [lesson(0)])
    (losses.classes + losses.distance).backward()
    assert losses.classes.item() == NOTHING
    assert (sets.classes.grad[..., 0, :] == 0).all()
    assert (sets.xy.grad[..., 0, :] == 0).all()


def test_a_set_without_a_thing_is_not_taught_points():
    sets = sets_at(FOUND, [[NEGATIVE] * 3, SAID[1]])
    alone = replace(lesson(), things=[LEFT], covers=lesson().covers[:1])
    losses = point_losses(sets, scene(), [alone])
    (losses.classes + losses.shape).backward()
    assert losses.classes.item() == NOTHING
    assert (sets.classes.grad[0, 0] == 0).all()
    assert (sets.shapes.grad[0, 0] == 0).all()


def test_an_unknown_thing_is_no_mistake_where_not_all_are_known():
    alone = replace(lesson(), things=[LEFT], covers=lesson().covers[:1])
    sets = sets_at(FOUND, SAID)
    assert point_losses(sets, scene(), [alone]).middle.item() > 1
    assert point_losses(sets, scene(), [replace(alone, complete=False)]).middle.item() == NOTHING


def test_a_lesson_weighs_as_much_as_it_is_sure():
    wrong = [[POSITIVE, NEGATIVE, POSITIVE], SAID[1]]
    one, other = sets_at(FOUND, SAID), sets_at(FOUND, wrong)
    both = PointSets(*(torch.cat([getattr(s, f.name) for s in (one, other)]) for f in fields(one)))
    losses = point_losses(both, scene(2), [lesson(sure=0.25), lesson(sure=0.75)])
    assert losses.classes.item() == pytest.approx(0.75 * 30 / 4, rel=1e-4)


def test_verdicts_take_the_place_of_what_matching_says():
    sets = sets_at(FOUND, SAID)
    told = torch.zeros(1, 2, 3)
    told[0, 0] = 1
    said = torch.tensor([[[POSITIVE, IGNORED, IGNORED], [NEGATIVE] * 3]])
    assert point_losses(sets, scene(), [lesson()], verdicts=(said, told)).classes.item() == pytest.approx(15)


def test_lessons_nobody_believes_teach_nothing():
    losses = point_losses(sets_at(FOUND, SAID), scene(), [lesson(sure=0.0)])
    assert [getattr(losses, field.name).item() for field in fields(losses)] == [0] * 5


def test_confidence_is_taught_on_the_lessons_own_things():
    torch.manual_seed(0)
    network, (covers, known) = Panel(6, judges=1), covers_of([lesson()], scene())
    reading = read(scene(), covers, known)
    first, second = (confidence_loss(network, reading, [meant]) for meant in (0, 1))
    assert np.exp(-first.item()) + np.exp(-second.item()) == pytest.approx(1, rel=1e-5)


def test_every_judge_is_taught_by_itself():
    torch.manual_seed(0)
    panel, (covers, known) = Panel(6, judges=2), covers_of([lesson()], scene())
    reading = read(scene(), covers, known)
    alone = [-judge(reading).log_softmax(-1)[0, 1].item() for judge in panel.judges]
    assert confidence_loss(panel, reading, [1]).item() == pytest.approx(sum(alone), rel=1e-5)
