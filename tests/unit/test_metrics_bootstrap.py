"""The paired bootstrap: values worked by hand, a slow twin, and what is drawn."""

import numpy as np
import pytest

from ppt.metrics import Conventions, Score, bootstrap
from ppt.seeding import generator

COMMON = Conventions("zero", True)


def score(id, intersection, union, image):
    iou = intersection / union if union else 0.0
    return Score(id, intersection, union, iou, pointm=False, missing=False, image=image)


def compared(here, there, conventions=COMMON, seed=0):
    return bootstrap.paired(here, there, conventions, generator(seed, "test", "bootstrap"))


def test_two_images_by_hand():
    """Image A has one sentence, 9/10 here and 4/10 there; B has two, 2/10 and 5/10 here, 4/10 and 5/10 there.

    In whole mIoU is 16/30 here and 13/30 there. Of two draws of two images AA (1 in 4) gives 9/10 - 4/10 and
    BB (1 in 4) gives 7/20 - 9/20, which alone has the other sign; AB and BA give the whole.
    """
    here = [score("a", 9, 10, "A"), score("b", 2, 10, "B"), score("c", 5, 10, "B")]
    there = [score("a", 4, 10, "A"), score("b", 4, 10, "B"), score("c", 5, 10, "B")]
    found = compared(here, there)
    assert found["miou"].here == pytest.approx(16 / 30)
    assert found["miou"].there == pytest.approx(13 / 30)
    assert found["miou"].difference == found["oiou"].difference == pytest.approx(0.1)
    assert (found["miou"].low, found["miou"].high) == pytest.approx((-0.1, 0.5))
    assert found["miou"].flips == pytest.approx(0.25, abs=0.02)
    # Prec@0.5: here a and c, there c: of BB nothing is left, which is no sign either.
    assert (found["prec@0.5"].here, found["prec@0.5"].there) == pytest.approx((2 / 3, 1 / 3))
    assert (found["prec@0.5"].low, found["prec@0.5"].high) == (0.0, 1.0)
    assert found["prec@0.5"].flips == pytest.approx(0.25, abs=0.02)
    strict = compared(here, there, Conventions("zero", False))["prec@0.5"]
    assert (strict.here, strict.there) == pytest.approx((1 / 3, 0.0))


def test_equal_runs_do_not_differ_at_all():
    rng = np.random.default_rng(0)
    scores = [score(f"{i}", int(rng.integers(1, 90)), 97, f"{i % 7}") for i in range(50)]
    for one in compared(scores, scores).values():
        assert (one.difference, one.low, one.high, one.flips) == (0, 0, 0, 0)
        assert one.here == one.there


def test_sentences_of_one_image_are_drawn_together():
    """Of one image every resample is the whole, however many sentences there are; of many they are not."""
    here = [score(f"{i}", i, 20, "one") for i in range(20)]
    there = [score(f"{i}", 10, 20, "one") for i in range(20)]
    alone = compared(here, there)["miou"]
    assert alone.low == alone.high == pytest.approx(alone.difference)
    unknown = [[Score(**{**vars(one), "image": ""}) for one in side] for side in (here, there)]
    assert bootstrap.images(*unknown) == 20
    apart = compared(*unknown)["miou"]
    assert apart.low < apart.difference < apart.high


def test_it_draws_as_a_plain_loop_does(monkeypatch):
    monkeypatch.setattr(bootstrap, "DRAWN", 200)
    monkeypatch.setattr(bootstrap, "AT_ONCE", 200)
    rng = np.random.default_rng(1)
    images = sorted(f"{rng.integers(6)}" for _ in range(30))
    sides = [[score(f"{i:02}", int(rng.integers(60)), 60, one) for i, one in enumerate(images)] for _ in "ab"]
    names = sorted(set(images))
    plain = generator(0, "test", "bootstrap").integers(len(names), size=(200, len(names)))
    overall = []
    for drawn in plain:
        taken = [i for place in drawn for i, image in enumerate(images) if image == names[place]]
        sums = [
            [sum(getattr(side[i], what) for i in taken) for what in ("intersection", "union")]
            for side in sides
        ]
        overall.append(sums[0][0] / sums[0][1] - sums[1][0] / sums[1][1])
    found = compared(*sides)["oiou"]
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(overall, (2.5, 97.5))))
    assert found.flips == np.mean(np.sign(overall) != np.sign(found.difference))


def test_without_a_pixel_the_overall_iou_is_the_mean():
    one, other = score("a", 0, 0, "A"), score("a", 0, 0, "A")
    found = compared([Score(**{**vars(one), "iou": 1.0})], [other])
    assert found["oiou"].difference == found["oiou"].low == 1.0


def test_only_the_same_sentences_compare():
    for here, there in (([], []), ([score("a", 1, 2, "")], [score("b", 1, 2, "")])):
        with pytest.raises(ValueError, match="only the same sentences"):
            compared(here, there)


def test_the_seed_decides():
    rng = np.random.default_rng(0)
    sides = [[score(f"{i}", int(rng.integers(1, 90)), 97, f"{i}") for i in range(30)] for _ in "ab"]
    assert compared(*sides) == compared(*sides)
    assert compared(*sides) != compared(*sides, seed=1)
