import pytest
import torch

from ppt.segmenter.layers import Wanted
from ppt.segmenter.second_look import SecondLook, _of_rivals


def look(seed=0):
    torch.manual_seed(seed)
    return SecondLook(20, 16)


def told(seed=1, grid=8):
    """Two sentences about three things each, columns of different widths."""
    rng = torch.Generator().manual_seed(seed)
    covered = torch.zeros(2, 3, grid, grid)
    covered[:, 0, :, :1] = covered[:, 1, :, 2:4] = covered[:, 2, :, 5:8] = 1
    click = torch.rand(2, grid, grid, generator=rng)
    cells, asked = torch.randn(2, 16, grid, grid, generator=rng), torch.randn(2, 16, generator=rng)
    alone, there = torch.randn(2, 4, 20, generator=rng), torch.ones(2, 4, dtype=torch.bool)
    return {
        "covered": covered,
        "known": torch.ones(2, 3, dtype=torch.bool),
        "click": click / click.sum((1, 2), keepdim=True),
        "cells": cells,
        "asked": asked,
        "alone": alone,
        "there": there,
    }


def test_the_mean_of_the_rivals_leaves_the_thing_itself_out():
    own = torch.tensor([[[1.0], [2.0], [4.0]]])
    lit = torch.log(torch.tensor([[0.5, 0.2, 0.3]]))
    expected = [(0.2 * 2 + 0.3 * 4) / 0.5, (0.5 * 1 + 0.3 * 4) / 0.8, (0.5 * 1 + 0.2 * 2) / 0.7]
    assert _of_rivals(own, lit)[0, :, 0].tolist() == pytest.approx(expected)


def test_things_that_are_not_known_have_no_say():
    model, given = look(), told()
    given["known"][:, 2] = False
    found = model(**given)
    assert (found[:, 2] == -1e4).all()
    given["covered"][:, 2] = 1
    torch.testing.assert_close(model(**given)[:, :2], found[:, :2])


def test_the_order_of_the_things_does_not_matter():
    model, given = look(), told()
    found = model(**given)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(
        model(**{**given, "covered": given["covered"][:, order]}), found[:, order], atol=1e-5, rtol=1e-4
    )


def test_a_thing_alone_is_compared_with_nothing():
    model, given = look(), told()
    given["known"][:, 1:] = False
    for value in model.score[1].parameters():
        torch.nn.init.zeros_(value)
    inside = (given["click"] * given["covered"][:, 0]).sum((1, 2))
    torch.testing.assert_close(model(**given)[:, 0], torch.log(inside + 1e-4))


def test_without_a_click_things_are_told_apart_by_what_they_are():
    model, given = look(), told()
    given["click"] = None
    found = model(**given)
    for name in ("covered", "known"):
        given[name] = given[name][:, [0, 1, 2, 0]]
    doubled = model(**given)
    assert found.isfinite().all()
    torch.testing.assert_close(doubled[:, 0], doubled[:, 3])
    given["click"] = told()["click"]
    assert not torch.allclose(model(**given), doubled, atol=1e-2)


def test_a_speck_is_not_smaller_than_a_small_thing():
    model, given = look(), told(grid=32)
    with torch.no_grad():
        for value in model.score[1].parameters():
            value.zero_()
    given["click"], covered = None, torch.zeros(2, 3, 32, 32)
    covered[:, 0, 8:24, 8:24] = covered[:, 1, 14:18, 14:18] = 1
    covered[:, 2, 15:17, 15:17] = 1
    given["covered"] = covered
    large, small, speck = model(**given)[0].tolist()
    assert abs(speck - small) < 0.2 * abs(small - large)


def test_words_that_are_not_there_ask_for_nothing():
    torch.manual_seed(0)
    wanted, alone = Wanted(20, 3), torch.randn(2, 4, 20)
    there = torch.tensor([[True, True, False, False], [True] * 4])
    found = wanted(alone, there)
    alone[0, 2:] = 9
    torch.testing.assert_close(wanted(alone, there)[0], found[0])
    assert (found[0] - found[1]).abs().max() > 1e-4


def test_bigger_and_smaller_are_learned_from_sixty_sentences():
    """Two things side by side, of which the click knows nothing; one of four words says which is meant."""
    torch.manual_seed(0)
    model, vectors = look(), torch.randn(30, 20)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)

    def batch(count, seed):
        rng = torch.Generator().manual_seed(seed)
        covered = torch.zeros(count, 2, 8, 8)
        meant = torch.zeros(count, dtype=torch.long)
        words = torch.randint(4, 30, (count, 3), generator=rng)
        for i in range(count):
            first = int(torch.randint(1, 8, (1,), generator=rng))
            first += first == 4
            covered[i, 0, :, :first] = covered[i, 1, :, first:] = 1
            word = int(torch.randint(4, (1,), generator=rng))
            words[i, int(torch.randint(3, (1,), generator=rng))] = word
            larger = 0 if first > 4 else 1
            meant[i] = larger if word < 2 else 1 - larger
        one = torch.ones(count, 2, dtype=torch.bool)
        click, cells = torch.full((count, 8, 8), 1 / 64), torch.zeros(count, 16, 8, 8)
        there = torch.ones(count, 3, dtype=torch.bool)
        return (covered, one, click, cells, torch.zeros(count, 16), vectors[words], there), meant

    for step in range(60):
        given, meant = batch(60, step % 3)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(*given), meant).backward()
        optimiser.step()
    given, meant = batch(200, 9)
    assert (model(*given).argmax(1) == meant).float().mean() > 0.9
