"""The point generator: shapes, and what must and must not change its answer."""

from dataclasses import fields, replace

import pytest
import torch

from ppt.points.generator import APART, IGNORED, POSITIVE, PointGenerator
from ppt.points.scene import Scene

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def new(**changes) -> PointGenerator:
    torch.manual_seed(0)
    return PointGenerator(**{"dimension": 12, "width": 32, "sets": 3, "points": 5, **changes}).eval()


@pytest.fixture(scope="module")
def generator() -> PointGenerator:
    return new()


def scene(pairs=2, rows=6, columns=8, words=5) -> Scene:
    rng = torch.Generator().manual_seed(1)
    y, x = torch.meshgrid(
        (torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij"
    )
    return Scene(
        torch.randn(pairs, rows, columns, 12, generator=rng),
        torch.rand(pairs, rows, columns, generator=rng),
        torch.stack([x, y], -1).expand(pairs, -1, -1, -1).clone(),
        torch.ones(pairs, rows, columns, dtype=torch.bool),
        torch.randn(pairs, words, 12, generator=rng),
        torch.ones(pairs, words, dtype=torch.bool),
    )


@torch.no_grad()
def answer(generator, asked):
    found = generator(asked)
    return found.xy, found.classes, generator.confidence(asked, found.shapes.sigmoid())


def test_shapes_and_ranges(generator):
    asked = scene()
    found = generator(asked)
    assert found.xy.shape == (2, 3, 5, 2)
    assert found.classes.shape == (2, 3, 5, 3)
    assert generator.confidence(asked, found.shapes.sigmoid()).shape == (2, 3)
    assert found.shapes.shape == (2, 3, 48)
    assert found.middles.shape == (2, 48)
    torch.testing.assert_close(found.looks.sum(-1), torch.ones(2, 3, 5))
    assert (found.xy >= 0).all()
    assert (found.xy <= 1).all()


def test_the_first_point_of_a_set_is_its_anchor_and_anchors_keep_apart(generator):
    asked = scene(rows=20, columns=20)
    found = generator(asked)
    at = asked.xy.flatten(1, 2).gather(1, found.anchors[..., None].expand(-1, -1, 2))
    torch.testing.assert_close(found.xy[:, :, 0], at)
    cells = (at * 20).floor()
    peaks = asked.relevance.flatten(1).argmax(1)
    assert (found.anchors[:, 0] == peaks).all(), "the first anchor is the map's peak"
    cells = cells[:, 1:]
    for pair in range(2):
        gaps = (cells[pair, :, None] - cells[pair, None]).abs().amax(-1)
        assert (gaps[~torch.eye(2, dtype=torch.bool)] > APART // 2).all()


def test_padding_changes_nothing(generator):
    asked = scene()

    def padded(values, rows=2, columns=3):
        grid = list(values.shape)
        grid[1], grid[2] = grid[1] + rows, grid[2] + columns
        out = torch.zeros(grid, dtype=values.dtype)
        out[:, : values.shape[1], : values.shape[2]] = values
        return out

    larger = Scene(
        *(padded(part) for part in (asked.cells, asked.relevance, asked.xy, asked.has_cell)),
        torch.cat([asked.words, torch.zeros(2, 3, 12)], 1),
        torch.cat([asked.has_word, torch.zeros(2, 3, dtype=torch.bool)], 1),
    )
    for before, after in zip(answer(generator, asked), answer(generator, larger), strict=True):
        torch.testing.assert_close(after, before, **TOLERANCE)


def test_a_pair_is_answered_the_same_in_any_company_and_order(generator):
    asked = scene(3)
    alone = Scene(*(getattr(asked, field.name)[1:2] for field in fields(asked)))
    turned = Scene(*(getattr(asked, field.name).flip(0) for field in fields(asked)))
    found = zip(*(answer(generator, s) for s in (asked, alone, turned)), strict=True)
    for together, single, other in found:
        torch.testing.assert_close(single[0], together[1], **TOLERANCE)
        torch.testing.assert_close(other, together.flip(0), **TOLERANCE)


@pytest.mark.parametrize("part", ["cells", "relevance", "words"])
def test_what_it_reads_matters_to_points_and_confidence(generator, part):
    asked = scene(1)
    values = getattr(asked, part).clone().requires_grad_()
    changed = replace(asked, **{part: values})
    found = generator(changed)
    confidence = generator.confidence(changed, found.shapes.detach().sigmoid())
    for out in (found.xy, found.classes, confidence):
        (gradient,) = torch.autograd.grad(out.square().sum(), values, retain_graph=True)
        assert gradient.abs().sum() > 0


def test_without_ignoring_every_point_is_something():
    asked = scene(4)
    assert (new(ignore=False)(asked).classes.argmax(-1) != IGNORED).all()


def test_the_anchor_is_positive(generator):
    assert (generator(scene(4)).classes[:, :, 0].argmax(-1) == POSITIVE).all()


def test_an_image_of_fewer_cells_than_sets_has_its_sets(generator):
    asked = scene(1, rows=1, columns=2)
    found = generator(asked)
    assert found.xy.shape == (1, 3, 5, 2)
    assert torch.isfinite(generator.confidence(asked, found.shapes.sigmoid())).all()
