import json
from dataclasses import replace
from typing import Any

import jaxtyping
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from ppt import rle
from ppt.types import (
    DenseFeatures,
    MaskCandidates,
    Pair,
    PointSet,
    PseudoLabel,
    Record,
    RelevanceMap,
    Truth,
)

PAIR = Pair("7", "cats/1.jpg", "the left cat", split="train")
MASK = rle.encode(np.eye(3, 4, dtype=bool))
LABEL = PseudoLabel("7", "cats/1.jpg", "the left cat", MASK, {"agreement": 0.5}, 0.25, ("chosen:agreement",))
finite = st.floats(-1e3, 1e3, width=32)


def points(n: int) -> PointSet:
    return PointSet(np.ones((n, 2), np.float32), np.ones(n, np.int8), 0.5, ("peak",))


def candidates(*scores: float) -> MaskCandidates:
    values = np.array(scores, np.float32)
    return MaskCandidates((MASK,) * len(scores), values, values)


@pytest.mark.parametrize(
    "noun",
    [
        PAIR,
        replace(PAIR, source="object_centric"),
        Record(PAIR, "0" * 64, 3, 4, ("cmyk",)),
        Truth("7", MASK),
        Truth("7", MASK, ()),
        Truth("7", MASK, (MASK, MASK)),
        LABEL,
        replace(LABEL, segmentation=None, weight=0.0),
    ],
)
def test_nouns_survive_json(noun: Any):
    assert type(noun).from_json(json.loads(json.dumps(noun.to_json()))) == noun


@given(
    xy=arrays(np.float32, st.tuples(st.integers(0, 5), st.just(2)), elements=finite),
    confidence=st.floats(0, 1),
)
def test_points_survive_json(xy: np.ndarray, confidence: float):
    labels = np.resize(np.array([1, 0, -1], np.int8), len(xy))
    there = PointSet(xy, labels, confidence, ("read",))
    back = PointSet.from_json(json.loads(json.dumps(there.to_json())))
    np.testing.assert_array_equal(back.xy, xy)
    np.testing.assert_array_equal(back.labels, labels)
    assert (back.confidence, back.reasons) == (confidence, ("read",))


def test_candidates_survive_json():
    back = MaskCandidates.from_json(json.loads(json.dumps(candidates(0.25, 0.1).to_json())))
    assert back.rles == (MASK, MASK)
    np.testing.assert_array_equal(back.predicted_iou, np.array([0.25, 0.1], np.float32))
    np.testing.assert_array_equal(back.stability, np.array([0.25, 0.1], np.float32))


def test_normalised_by_hand():
    stretched = RelevanceMap(np.array([[-1, 0, 3]], np.float32), 10, 30).normalised()
    assert stretched is not None
    np.testing.assert_array_equal(stretched.values, np.array([[0, 0.25, 1]], np.float32))
    assert (stretched.height, stretched.width) == (10, 30)


@given(values=arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=finite))
def test_normalised_spans_the_unit_and_keeps_the_order(values: np.ndarray):
    stretched = RelevanceMap(values, 8, 8).normalised()
    if stretched is None:
        assert np.ptp(values) <= 1e-6 * np.abs(values).max()
        return
    assert stretched.values.shape == values.shape
    assert (stretched.values.min(), stretched.values.max()) == (0, 1)
    order = np.argsort(values, axis=None, kind="stable")
    assert (np.diff(stretched.values.ravel()[order]) >= 0).all()


@pytest.mark.parametrize("values", [[[0, 0]], [[0.3, 0.3]], [[1, np.nan]], [[1, np.inf]], [[5]]])
def test_a_flat_or_broken_map_is_no_evidence(values: list[list[float]]):
    assert RelevanceMap(np.array(values, np.float32), 4, 4).normalised() is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(PAIR, text=" \n"), r"'7': text must not be blank, got ' \\n'"),
        (lambda: replace(PAIR, id=""), "id must not be blank, got ''"),
        (lambda: replace(PAIR, text="\ud800"), "lone surrogate"),
        (lambda: replace(PAIR, source="web"), "referring.* got 'web'"),
        (lambda: Record(PAIR, "0" * 64, 0, 4), "got 0x4"),
        (lambda: Record(PAIR, "xyz", 3, 4), "got 'xyz'"),
        (lambda: RelevanceMap(np.zeros((0, 3), np.float32), 4, 4), r"shape \(0, 3\)"),
        (lambda: RelevanceMap(np.zeros((2, 3), np.float32), 4, -1), "got 4x-1"),
        (lambda: DenseFeatures(np.zeros((2, 3, 0), np.float32), 4, 4), r"shape \(2, 3, 0\)"),
        (lambda: DenseFeatures(np.full((2, 3, 1), np.nan, np.float32), 4, 4), "got 6 of 6"),
        (lambda: replace(points(2), labels=np.ones(3, np.int8)), r"xy must be \(3, 2\).* got \(2, 2\)"),
        (lambda: replace(points(2), labels=np.array([1, 3], np.int8)), r"got \[1, 3\]"),
        (lambda: replace(points(2), confidence=1.5), "confidence must lie .* got 1.5"),
        (lambda: replace(points(1), xy=np.array([[1, np.inf]], np.float32)), "got 1 of 2"),
        (
            lambda: replace(candidates(1, 1), stability=np.ones(3, np.float32)),
            r"stability must be \(2,\), got \(3,\)",
        ),
        (lambda: candidates(1, float("nan")), "predicted_iou must be finite, got 1 of 2"),
        (
            lambda: replace(candidates(1, 1), rles=(MASK, rle.encode(np.ones((5, 6), bool)))),
            r"\(3, 4\), \(5, 6\)",
        ),
        (lambda: replace(LABEL, weight=-0.1), r"'7': weight must lie .* got -0\.1"),
        (lambda: replace(LABEL, weight=float("nan")), "got nan"),
        (lambda: replace(LABEL, segmentation=None), r"without a mask, got 0\.25"),
        (lambda: replace(LABEL, scores={"stability": float("inf")}), "'stability' must be finite, got inf"),
    ],
)
def test_invalid_nouns_cannot_be_built(make: Any, message: str, monkeypatch: pytest.MonkeyPatch):
    # Users run without the shape checks of the tests, so the nouns must hold their own.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        make()
