"""One mask in every format's own writing, by hand; and polygons that are the mask, whatever the mask."""

import io

import numpy as np
import pytest
from fixtures.exports import SMALL, brushed, grey
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ppt import rle
from ppt.exports import cvat, label_studio, png, polygons, yolo

MASK = rle.encode(SMALL)
MASKS = arrays.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))
RING = np.pad(np.pad(np.zeros((1, 2), bool), 1, constant_values=True), 1)
"""5 high and 6 wide: a frame with a hole of two pixels."""


def filled(polygon: list[float], height: int, width: int) -> np.ndarray:
    """Even-odd, at the pixels' centres: the slow twin of any program that fills polygons."""
    corners = np.array(polygon).reshape(-1, 2)
    mask = np.zeros((height, width), bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, 0), strict=True):
        for y in range(height):
            if (y0 <= y + 0.5) != (y1 <= y + 0.5):
                crossing = x0 + (y + 0.5 - y0) * (x1 - x0) / (y1 - y0)
                mask[y] ^= np.arange(width) + 0.5 > crossing
    return mask


def test_outlines_run_along_the_pixels_edges_clockwise():
    assert polygons.parts(MASK) == [
        [1, 0, 3, 0, 3, 1, 2, 1, 2, 2, 1, 2],
        [3, 1, 4, 1, 4, 2, 3, 2],
    ]


def test_a_hole_is_cut_open_and_stays_a_hole():
    [outline] = polygons.parts(rle.encode(RING))
    assert outline[:2] == [1, 1]
    assert len(outline) == 2 * (4 + 4 + 2), "both outlines, and a cut there and back"
    assert np.array_equal(filled(outline, 5, 6), RING)
    assert polygons.overlap(rle.encode(RING), [outline]) == 1


def test_an_empty_mask_has_no_outline():
    empty = rle.encode(np.zeros((2, 2), bool))
    assert polygons.parts(empty) == []
    with pytest.raises(ValueError, match="an empty mask has no outline"):
        polygons.single(empty)


@settings(max_examples=80, deadline=None)
@given(MASKS)
def test_polygons_give_the_mask_again(mask):
    packed = rle.encode(mask)
    parts = polygons.parts(packed)
    assert np.array_equal(sum((filled(one, *mask.shape) for one in parts), np.zeros_like(mask)), mask)
    if mask.any():
        whole = polygons.single(packed)
        assert np.array_equal(filled(whole, *mask.shape), mask)
        assert polygons.overlap(packed, parts) == polygons.overlap(packed, [whole]) == 1
        line = yolo.line(packed)
        assert polygons.overlap(packed, [yolo.polygon_of(line, *mask.shape)]) == 1


def test_the_overlap_of_a_polygon_that_is_not_the_mask_is_told():
    assert polygons.overlap(MASK, [[1.0, 0.0, 3.0, 0.0, 3.0, 2.0, 1.0, 2.0]]) == 3 / 5


def test_yolo_has_one_polygon_in_shares_of_the_sides():
    assert yolo.line(MASK) == (
        "0 0.25 0 0.75 0 0.75 0.333333 1 0.333333 1 0.666667 0.75 0.666667 0.75 0.333333 0.5 0.333333"
        " 0.5 0.666667 0.25 0.666667"
    )


def test_cvat_has_the_runs_of_the_box_by_rows_the_first_outside():
    assert cvat.runs(MASK) == ([0, 2, 1, 1, 1, 1], (1, 0, 3, 2))
    assert cvat.runs(rle.encode(SMALL[:, ::-1])) == ([1, 3, 1, 1], (0, 0, 3, 2))


def test_label_studio_has_runs_of_bits():
    inside, outside = "1" * 8, "0" * 8
    bits = f"{48:032b}" + "00111" + "0010" + "0011" + "0111" + "1111"
    bits += f"100011{outside}" + f"100111{inside}" + f"100111{outside}" + f"100011{inside}"
    bits += f"100011{outside}" + f"100011{inside}" + f"1011111{outside}"
    bits += "0" * (-len(bits) % 8)
    assert label_studio.brush(MASK) == [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]


@settings(max_examples=50, deadline=None)
@given(MASKS)
def test_label_studios_runs_give_the_mask_again(mask):
    assert np.array_equal(brushed(label_studio.brush(rle.encode(mask)), *mask.shape), mask)


def test_a_run_longer_than_label_studio_can_say_is_several():
    mask = np.zeros((200, 200), bool)
    mask[150:] = True
    assert np.array_equal(brushed(label_studio.brush(rle.encode(mask)), 200, 200), mask)


def test_a_png_is_the_mask_and_always_the_same_bytes():
    assert np.array_equal(grey(png.encoded(MASK)), SMALL)
    assert png.encoded(MASK) == png.encoded(rle.encode(SMALL.copy()))
    assert io.BytesIO(png.encoded(MASK)).read(4) == b"\x89PNG"
