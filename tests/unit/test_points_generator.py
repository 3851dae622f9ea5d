"""The point generator: shapes, and what must and must not change its answer."""

from dataclasses import replace

import pytest
import torch

from ppt.points.generator import PointGenerator, Scene

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def generator() -> PointGenerator:
    torch.manual_seed(0)
    return PointGenerator(cell_width=12, word_width=10, width=32, sets=3, points=4, layers=2, heads=4).eval()


def scene(pairs=2, cells=20, words=6) -> Scene:
    rng = torch.Generator().manual_seed(1)
    return Scene(
        torch.randn(pairs, cells, 12, generator=rng),
        torch.rand(pairs, cells, generator=rng),
        torch.rand(pairs, cells, 2, generator=rng),
        torch.ones(pairs, cells, dtype=torch.bool),
        torch.randn(pairs, words, 10, generator=rng),
        torch.ones(pairs, words, dtype=torch.bool),
    )


@torch.no_grad()
def answer(generator, asked):
    found = generator(asked)
    return found.xy, found.classes, found.confidence


def test_shapes_and_ranges(generator):
    found = generator(scene())
    assert found.xy.shape == (2, 3, 4, 2)
    assert found.classes.shape == (2, 3, 4, 3)
    assert found.confidence.shape == (2, 3)
    assert found.looks.shape == (2, 3, 4, 20)
    torch.testing.assert_close(found.looks.sum(-1), torch.ones(2, 3, 4))
    assert (found.xy >= 0).all()
    assert (found.xy <= 1).all()


def test_padding_changes_nothing(generator):
    asked = scene()
    padded = Scene(
        *(
            torch.cat([part, torch.full_like(part[:, :5], 7)], 1)
            for part in (asked.cells, asked.relevance, asked.xy)
        ),
        torch.cat([asked.has_cell, torch.zeros(2, 5, dtype=torch.bool)], 1),
        torch.cat([asked.words, torch.full_like(asked.words[:, :3], -4)], 1),
        torch.cat([asked.has_word, torch.zeros(2, 3, dtype=torch.bool)], 1),
    )
    for before, after in zip(answer(generator, asked), answer(generator, padded), strict=True):
        torch.testing.assert_close(after, before, **TOLERANCE)


def test_the_order_of_cells_changes_nothing(generator):
    """Where a cell is, its xy says; not its number."""
    asked, order = scene(), torch.randperm(20, generator=torch.Generator().manual_seed(2))
    turned = replace(
        asked, cells=asked.cells[:, order], relevance=asked.relevance[:, order], xy=asked.xy[:, order]
    )
    for before, after in zip(answer(generator, asked), answer(generator, turned), strict=True):
        torch.testing.assert_close(after, before, **TOLERANCE)


def test_a_pair_is_answered_the_same_in_any_company(generator):
    asked = scene(3)
    alone = Scene(*(getattr(asked, name)[1:2] for name in vars(asked)))
    for together, single in zip(answer(generator, asked), answer(generator, alone), strict=True):
        torch.testing.assert_close(single[0], together[1], **TOLERANCE)


@pytest.mark.parametrize("part", ["cells", "relevance", "xy", "words"])
def test_everything_it_reads_matters_to_every_answer(generator, part):
    asked = scene(1)
    values = getattr(asked, part).clone().requires_grad_()
    found = generator(replace(asked, **{part: values}))
    for out in (found.xy, found.classes, found.confidence):
        (gradient,) = torch.autograd.grad(out.square().sum(), values, retain_graph=True)
        assert (gradient.abs().sum((0, *range(2, gradient.ndim))) > 0).all()
