import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco

from ppt import rle
from ppt.rle import Rle, RleError

masks = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=24))


@st.composite
def mask_pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(array_shapes(min_dims=2, max_dims=2, max_side=16))
    return draw(arrays(np.bool_, shape)), draw(arrays(np.bool_, shape))


def square() -> np.ndarray:
    mask = np.zeros((4, 5), bool)
    mask[1:3, 2:4] = True
    return mask


def test_encode_by_hand():
    encoded = rle.encode(square())
    # columns of 4: two empty ones and a pixel (9), 2 in, 2 out, 2 in, 5 out (stored less the 2 before it: 3)
    assert encoded == Rle(4, 5, "92203")
    assert encoded == rle.check({"size": [4, 5], "counts": [9, 2, 2, 2, 5]})
    assert (rle.area(encoded), rle.box(encoded)) == (4, (2, 1, 4, 3))


@given(mask=masks)
def test_decode_undoes_encode_and_coco_agrees(mask: np.ndarray):
    encoded = rle.encode(mask)
    decoded = rle.decode(encoded)
    np.testing.assert_array_equal(decoded, mask)
    assert decoded.flags.c_contiguous
    official = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert encoded.counts == official["counts"].decode()
    assert rle.from_json(encoded.to_json()) == encoded


@given(mask=masks)
def test_area_and_box_are_those_of_the_pixels(mask: np.ndarray):
    encoded = rle.encode(mask)
    assert rle.area(encoded) == mask.sum()
    rows, columns = np.nonzero(mask)
    expected = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if len(rows) else (0, 0, 0, 0)
    assert rle.box(encoded) == expected


@given(pair=mask_pairs())
def test_intersection_and_union_are_those_of_the_pixels(pair: tuple[np.ndarray, np.ndarray]):
    a, b = (rle.encode(mask) for mask in pair)
    both, either = (pair[0] & pair[1]).sum(), (pair[0] | pair[1]).sum()
    assert rle.intersection_union(a, b) == (both, either)
    assert rle.intersection_union(b, a) == (both, either)
    assert rle.iou(a, b) == (both / either if either else 0.0)
    assert rle.iou(a, a) == (1.0 if pair[0].any() else 0.0)


def test_masks_of_different_sizes_do_not_compare():
    with pytest.raises(RleError, match="4x5 and 5x4"):
        rle.intersection_union(rle.encode(square()), rle.encode(square().T))


@given(runs=st.lists(st.integers(0, 5), min_size=1, max_size=12).filter(lambda runs: sum(runs) > 0))
def test_zero_runs_of_foreign_masks_are_joined(runs: list[int]):
    pixels = np.repeat(np.arange(len(runs)) % 2, runs).astype(bool)
    read = rle.check({"size": [len(pixels), 1], "counts": runs})
    assert read == rle.encode(pixels[:, None])


def test_bytes_counts_are_read():
    assert rle.check({"size": [4, 5], "counts": b"92203"}) == rle.encode(square())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"size": [4, 5], "counts": "9220"}, "sum to 15, but 4x5 is 20"),
        ({"size": [4, 5], "counts": "922033"}, "sum to 25"),
        ({"size": [4, 5], "counts": ""}, "empty"),
        ({"size": [4, 5], "counts": "9220o"}, "cut off"),
        ({"size": [4, 5], "counts": "9220~"}, "'~' at position 4"),
        ({"size": [4, 5], "counts": "9é"}, "not ASCII"),
        ({"size": [4, 5], "counts": "oooooooo0"}, "run of 9 characters"),
        ({"size": [1, 1], "counts": "0" * 99}, "99 characters, too many for 1x1"),
        ({"size": [4, 5], "counts": "N"}, "run 0 is negative: -2"),
        ({"size": [4, 5], "counts": [9, 2, -2]}, "run 2 .* got -2"),
        ({"size": [4, 5], "counts": [True]}, "run 0 .* got True"),
        ({"size": [4, 5], "counts": []}, "sum to 0"),
        ({"size": [4, 5], "counts": None}, "got NoneType"),
        ({"size": [4], "counts": "0"}, r"\[height, width\], got \[4\]"),
        ({"size": [0, 5], "counts": "0"}, "height .* got 0"),
        ({"size": [4, "5"], "counts": "0"}, "width .* got '5'"),
        ({"size": [60000, 60000], "counts": "0"}, "60000x60000 pixels"),
        ({"counts": "0"}, "got None"),
        ("92203", "got str"),
        ([[0, 0, 1, 1, 2]], "polygon 0 .* got 5 numbers"),
        ([[0, 0, 1, 1]], "got 4 numbers"),
        ([[0, 0, 4, 0, 4, float("nan")]], "coordinate nan at 5"),
        ([[0, 0, 1e9, 0, 4, 4]], r"coordinate 1000000000\.0 at 2, expected -5\.\.10"),
        ([7], "polygon 0 .* got int"),
        ([], "list of polygons is empty"),
    ],
)
def test_malformed_masks_are_refused_with_the_value(value: Any, message: str):
    with pytest.raises(RleError, match=message):
        rle.from_json(value, 4, 5) if isinstance(value, list) else rle.from_json(value)


@given(data=st.binary(min_size=1, max_size=30), h=st.integers(1, 30), w=st.integers(1, 30))
@settings(max_examples=300)
def test_garbage_never_reaches_the_decoder(data: bytes, h: int, w: int):
    try:
        read = rle.check({"size": [h, w], "counts": data})
    except RleError:
        return
    assert rle.decode(read).sum() == rle.area(read)


@given(mask=masks, position=st.integers(0, 200), character=st.characters(min_codepoint=48, max_codepoint=111))
def test_mutated_masks_are_refused_or_whole(mask: np.ndarray, position: int, character: str):
    value = copy.deepcopy(rle.encode(mask).to_json())
    position %= len(value["counts"])
    value["counts"] = value["counts"][:position] + character + value["counts"][position + 1 :]
    try:
        read = rle.check(value)
    except RleError:
        return
    assert rle.decode(read).shape == mask.shape


def test_an_rle_with_an_inner_zero_run_cannot_be_built():
    with pytest.raises(RleError, match="zero run"):
        Rle(2, 3, "20031")


def test_a_mask_must_have_the_size_of_its_image():
    with pytest.raises(RleError, match="4x5 but its image is 4x6"):
        rle.from_json(rle.encode(square()).to_json(), 4, 6)
    with pytest.raises(RleError, match="polygons carry no size"):
        rle.from_json([[0, 0, 4, 0, 4, 4]])


def test_polygons_are_united_not_counted_twice():
    left, right = [0, 0, 3, 0, 3, 4, 0, 4], [2, 0, 5, 0, 5, 4, 2, 4]
    united = rle.decode(rle.from_polygons([left, right], 4, 6))
    expected = np.zeros((4, 6), bool)
    expected[:, :5] = True
    np.testing.assert_array_equal(united, expected)


@given(
    points=st.lists(st.tuples(st.integers(-9, 18), st.integers(-7, 14)), min_size=3, max_size=8),
)
def test_polygons_reaching_outside_are_cut_at_the_image(points: list[tuple[int, int]]):
    polygon = [coordinate for point in points for coordinate in point]
    assert rle.decode(rle.from_polygons([polygon], 7, 9)).shape == (7, 9)
