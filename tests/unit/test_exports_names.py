"""Names and numbers that are safe and stay; what is chosen, and in which split it is."""

import re
from collections import Counter

import numpy as np
import pytest
from fixtures.exports import HOSTILE, labelled
from hypothesis import given
from hypothesis import strategies as st

from ppt import rle
from ppt.exports import names
from ppt.exports.items import ExportError, Tally
from ppt.exports.selection import Selection, select

SHA = "ab" * 32


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_name_is_safe_on_any_disk(text):
    assert re.fullmatch("[A-Za-z0-9_]{1,48}-[0-9a-f]{16}", names.safe(text))
    assert re.fullmatch(r"[a-zA-Z0-9_]{1,57}", names.split(text))


def test_names_that_look_alike_stay_apart():
    alike = [
        "a/x.jpg",
        "b/x.jpg",
        "a/X.jpg",
        "a/x.png",
        "é.jpg",
        "e.jpg",
        "e\u0301.jpg",
        "CON",
        "../x.jpg",
        "x" * 300,
    ]
    assert len({names.safe(name).lower() for name in alike}) == len(alike)
    assert names.safe("a/x.jpg").startswith("x-")
    assert names.safe(HOSTILE).startswith("pass_wd-")


def test_splits_keep_their_names_where_a_format_can_say_them():
    for kept in ("train", "val", "testA", "testBC", "fold_3"):
        assert names.split(kept) == kept
    assert names.split("") == "train"
    odd = ["../up", "a b", "Train", "nul", "com1", "testa", "ä"]
    found = [names.split(name) for name in odd]
    assert len({one.lower() for one in found} | {"train", "testa", "nul", "com1"}) == len(odd) + 4


def test_numbers_follow_from_the_name_and_are_exact_in_double_precision():
    first, second = names.Numbers(), names.Numbers()
    ids = [f"pair {n}" for n in range(2000)]
    numbers = [first.of("item", id) for id in ids]
    assert numbers[::-1] == [second.of("item", id) for id in reversed(ids)]
    assert len(set(numbers)) == 2000
    assert all(0 < number < 2**53 and int(float(number)) == number for number in numbers)
    assert first.of("image", "pair 1") != first.of("item", "pair 1") == numbers[1]


def test_two_names_never_share_a_number(monkeypatch):
    monkeypatch.setattr(names, "_digest", lambda text: f"{len(text):064x}"[::-1])
    numbers = names.Numbers()
    found = [numbers.of("item", name) for name in ("a", "b", "c", "a", "b")]
    assert len(set(found)) == 3
    assert found[:2] == found[3:]


def test_an_image_stays_in_its_split_when_others_come(tmp_path):
    chosen = Selection(splits=(("train", 0.5), ("val", 0.3), ("test", 0.2)))
    few = [labelled(tmp_path, f"{n}", "a.png") for n in range(3)]
    assert len({chosen.split_of(item) for item in few}) == 1, "by the image, not by the sentence"
    shares = Counter()
    for n in range(4000):
        place = names.share(f"{n:064x}")
        shares[place < 0.5] += 1
    assert 0.45 < shares[True] / 4000 < 0.55
    assert names.share("0" * 64) == pytest.approx(int(names._digest("split\0" + "0" * 64)[:13], 16) / 2**52)


def test_what_is_left_out_is_counted_by_reason(tmp_path):
    empty = rle.encode(np.zeros((48, 64), bool))
    items = [
        labelled(tmp_path, "good", "a.png"),
        labelled(tmp_path, "review", "a.png", band="review", score=0.3),
        labelled(tmp_path, "dropped", "a.png", band="drop"),
        labelled(tmp_path, "high", "a.png", score=0.95),
        labelled(tmp_path, "none", "a.png", mask=None),
        labelled(tmp_path, "empty", "a.png", mask=empty),
        labelled(tmp_path, "bare", "b.png", mask=None, split=""),
    ]
    tally = Tally()
    pictures = [*select([items[:6], items[6:]], Selection(least=0.5, most=0.9), tally)]
    assert [[mask.item.id for mask in one.masks] for one in pictures] == [["good"], []]
    reasons = {"score below 0.5", "band drop", "score above 0.9", "empty mask"}
    assert tally.left == {**dict.fromkeys(reasons, 1), "no mask": 2}
    assert tally.faults == 0
    assert tally.notes == {"sentences of no split are in train": 1}


def test_an_image_of_several_splits_is_a_picture_in_each_and_that_is_said(tmp_path):
    items = [labelled(tmp_path, "1", "a.png"), labelled(tmp_path, "2", "a.png", split="val")]
    tally = Tally()
    assert [one.split for one in select([items], Selection(), tally)] == ["train", "val"]
    assert [*tally.notes.values()] == [1]
    parted = Selection(splits=(("one", 0.5), ("two", 0.5)))
    assert len([*select([items], parted, Tally())]) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"least": 0.9, "most": 0.5}, "got 0.9 and 0.5"),
        ({"splits": (("train", 0.9),)}, "must be 1 together, got 0.9"),
        ({"splits": (("a", 0.5), ("a", 0.5))}, "given twice: a, a"),
        ({"splits": (("../up", 1.0),)}, "'../up' is no name"),
        ({"splits": (("a", 1.5),)}, "share of a must lie above 0 and up to 1, got 1.5"),
    ],
)
def test_a_selection_that_makes_no_sense_is_refused(given, said):
    with pytest.raises(ExportError) as error:
        Selection(**given)
    assert said in str(error.value)


def test_an_item_is_checked(tmp_path):
    with pytest.raises(ValueError, match=r"item 'x': mask is 3x4, its image 48x64"):
        labelled(tmp_path, "x", "a.png", mask=rle.encode(np.ones((3, 4), bool)))
    with pytest.raises(ValueError, match=r"score must lie in \[0, 1\], got 1.5"):
        labelled(tmp_path, "x", "a.png", score=1.5)
