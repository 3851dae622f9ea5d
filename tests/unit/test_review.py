"""What a person decided: read, refused by line, and applied to labels."""

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppt import rle
from ppt.review import Decision, ReviewError, read_review, reviewed
from ppt.types import PseudoLabel


def mask(rows: int) -> rle.Rle:
    drawn = np.zeros((4, 5), bool)
    drawn[:rows] = True
    return rle.encode(drawn)


LABEL = PseudoLabel("a", "a.png", "the dog", mask(1), {"stability": 0.4}, 0.3, ("peak",), of="f" * 16)
CANDIDATES = [(mask(1), {"stability": 0.4}), (mask(3), {"stability": 0.9})]


def lines(*rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def applied(decision, label=LABEL):
    return reviewed(label, decision, CANDIDATES, (4, 5))


def test_the_last_line_of_an_id_wins_and_none_takes_back():
    data = lines(
        {"id": "a", "decision": "drop", "who": "Ann", "when": "2026-01-02T03:04:05Z"},
        {"id": "b", "decision": "keep"},
        {"id": "a", "decision": "keep", "who": "Bob", "note": "fine"},
        {"id": "b", "decision": "none"},
        {"id": "c", "decision": "mask", "segmentation": mask(2).to_json(), "points": [[1, 2, 1]]},
    )  # fmt: skip
    found = read_review(data + b"\n")
    assert found == {
        "a": Decision("a", "keep", note="fine", who="Bob"),
        "c": Decision("c", "mask", segmentation=mask(2)),
    }


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ([1], "expected an object with an id"),
        ({"decision": "keep"}, "expected an object with an id"),
        ({"id": "a"}, "decision: expected one of"),
        ({"id": "a", "decision": "perhaps"}, "got 'perhaps'"),
        ({"id": "a", "decision": "candidate"}, "candidate: expected a number from 0 on"),
        ({"id": "a", "decision": "candidate", "candidate": True}, "candidate: expected a number"),
        ({"id": "a", "decision": "candidate", "candidate": -1}, "candidate: expected a number"),
        ({"id": "a", "decision": "mask"}, "segmentation: expected COCO RLE"),
        ({"id": "a", "decision": "mask", "segmentation": {"size": [4, 5], "counts": "?"}}, "segmentation: "),
        ({"id": "a", "decision": "keep", "who": 7}, "who: expected text"),
    ],
)
def test_a_line_that_is_no_decision_is_named(row, why):
    with pytest.raises(ReviewError, match=r"^line 2: ") as caught:
        read_review(lines({"id": "b", "decision": "keep"}, row))
    assert why in str(caught.value)


def test_of_many_wrong_lines_the_first_are_named():
    with pytest.raises(ReviewError, match=r"line 5: .* and 3 more$"):
        read_review(b"no\n" * 8)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data):
    with contextlib.suppress(ReviewError):
        read_review(data)


def test_what_is_kept_picked_or_drawn_has_weight_1_and_what_is_dropped_0():
    kept = applied(Decision("a", "keep", who="Ann", when="2026-01-02T03:04:05Z", of="f" * 16))
    assert (kept.segmentation, kept.weight, kept.reasons) == (mask(1), 1.0, ("peak", "reviewed:keep"))
    told = {"decision": "keep", "who": "Ann", "when": "2026-01-02T03:04:05Z", "note": ""}
    assert kept.to_json()["review"] == told
    assert PseudoLabel.from_json(kept.to_json()) == kept
    dropped = applied(Decision("a", "drop"))
    assert (dropped.segmentation, dropped.weight) == (mask(1), 0.0)
    picked = applied(Decision("a", "candidate", candidate=1))
    assert (picked.segmentation, picked.weight, picked.scores) == (mask(3), 1.0, {"stability": 0.9})
    drawn = applied(Decision("a", "mask", segmentation=mask(2)))
    assert (drawn.segmentation, drawn.weight) == (mask(2), 1.0)
    flagged = applied(Decision("a", "flag", note="which dog?"))
    assert (flagged.segmentation, flagged.weight) == (mask(1), 0.3)
    assert flagged.review["note"] == "which dog?"


@pytest.mark.parametrize(
    ("decision", "why"),
    [
        (Decision("a", "keep", of="0" * 16), "other masks than those there are now"),
        (Decision("a", "candidate", candidate=2), "no candidate 3, only 2"),
        (Decision("a", "mask", segmentation=rle.encode(np.ones((5, 4), bool))), "mask is 5x4, the image 4x5"),
        (Decision("a", "mask", segmentation=mask(0)), "its mask is empty"),
    ],
)
def test_a_decision_that_does_not_fit_changes_nothing_and_says_so(decision, why):
    found = applied(decision)
    assert (found.segmentation, found.weight, found.review) == (mask(1), 0.3, None)
    assert found.reasons[0] == "peak"
    assert found.reasons[1].startswith("review_passed_over:")
    assert why in found.reasons[1]


def test_without_a_mask_there_is_nothing_to_keep_but_one_may_be_picked():
    bare = PseudoLabel("a", "a.png", "the dog", None, {"peak": 0.0}, 0.0)
    assert "there is no mask to keep" in applied(Decision("a", "keep"), bare).reasons[0]
    assert applied(Decision("a", "candidate", candidate=0), bare).weight == 1
