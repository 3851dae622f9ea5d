import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppt import rle
from ppt.report import preview
from ppt.types import PointSet, RelevanceMap

GREY = np.full((96, 128, 3), 120, np.uint8)


def points(*rows):
    xy = np.array([row[:2] for row in rows], np.float32).reshape(-1, 2)
    return PointSet(xy, np.array([row[2] for row in rows], np.int8), 1.0)


def disc(height=96, width=128, centre=(64, 48), radius=20):
    ys, xs = np.mgrid[:height, :width]
    return (xs - centre[0]) ** 2 + (ys - centre[1]) ** 2 <= radius**2


def test_a_mask_tints_its_inside_outlines_its_edge_and_leaves_the_rest():
    drawn = preview.overlay_mask(GREY, rle.encode(disc()), colour=(0, 0, 255), alpha=0.5)
    assert drawn[48, 64].tolist() == [60, 60, 188]
    far = ~disc(radius=26)
    np.testing.assert_array_equal(drawn[far], GREY[far])
    edge = disc(radius=20) & ~disc(radius=18)
    assert (drawn[edge][:, 2] > 150).all()
    assert (GREY == 120).all(), "the image passed in was drawn on"


def test_alpha_zero_draws_the_outline_alone():
    drawn = preview.overlay_mask(GREY, rle.encode(disc()), alpha=0.0)
    assert drawn[48, 64].tolist() == [120, 120, 120]
    assert (drawn != 120).any()


def test_an_empty_mask_draws_nothing():
    np.testing.assert_array_equal(preview.overlay_mask(GREY, rle.encode(np.zeros((96, 128), bool))), GREY)


def test_a_mask_of_another_size_is_refused_with_both_sizes():
    with pytest.raises(ValueError, match=r"mask is 50x60 but its image is 96x128"):
        preview.overlay_mask(GREY, rle.encode(np.zeros((50, 60), bool)))


def test_heat_is_brightest_where_the_map_is_highest():
    values = np.zeros((6, 8), np.float32)
    values[1, 6] = 0.3
    drawn = preview.overlay_heat(RelevanceMap(values, 96, 128), GREY).astype(int).sum(2)
    y, x = np.unravel_index(drawn.argmax(), drawn.shape)
    assert (y // 16, x // 16) == (1, 6)
    assert drawn[80, 8] < 250


@pytest.mark.parametrize("values", [np.full((4, 4), 0.2), np.full((4, 4), np.nan)])
def test_a_map_without_evidence_leaves_the_image_in_grey(values):
    image = np.zeros((40, 40, 3), np.uint8)
    image[..., 0] = 200
    drawn = preview.overlay_heat(RelevanceMap(values.astype(np.float32), 40, 40), image)
    assert (drawn == drawn[0, 0, 0]).all()


def test_points_differ_in_colour_and_in_shape():
    large = np.full((480, 640, 3), 120, np.uint8)
    drawn = preview.draw_points(large, points((100, 100, 1), (300, 100, 0), (500, 300, -1)))
    assert drawn[104, 100].tolist() == [255] * 3, "the plus has an upright"
    assert drawn[104, 300].tolist() == list(preview.NEGATIVE), "the minus has none"
    assert drawn[100, 304].tolist() == [255] * 3
    assert drawn[104, 104].tolist() == list(preview.POSITIVE)
    assert drawn[300, 500].tolist() == [255] * 3, "an ignored point is hollow"
    assert drawn[300, 510].tolist() == list(preview.IGNORED)
    np.testing.assert_array_equal(drawn[:80], large[:80])


def test_a_positive_point_lies_on_top():
    large = np.full((480, 640, 3), 120, np.uint8)
    for order in (((50, 50, 1), (52, 50, 0)), ((52, 50, 0), (50, 50, 1))):
        assert preview.draw_points(large, points(*order))[54, 54].tolist() == list(preview.POSITIVE)


def test_points_outside_the_image_do_no_harm():
    np.testing.assert_array_equal(preview.draw_points(GREY, points((-500, 20, 1), (9000, 9000, 0))), GREY)


def test_no_points_is_the_image_itself():
    np.testing.assert_array_equal(preview.draw_points(GREY, points()), GREY)


sides = st.integers(1, 90)


@given(sizes=st.lists(st.tuples(sides, sides), min_size=1, max_size=7), columns=st.integers(1, 4))
def test_a_sheet_holds_every_tile_whatever_the_sizes(sizes, columns):
    tiles = [np.full((h, w, 3), (250, 10, 30), np.uint8) for h, w in sizes]
    sheet = preview.contact_sheet(tiles, [""] * len(tiles), columns, side=48)
    rows = -(-len(tiles) // columns)
    assert sheet.shape[1] == 12 + min(columns, len(tiles)) * 60
    red = (sheet == (250, 10, 30)).all(2)
    parts, *_ = cv2.connectedComponents(red.astype(np.uint8))
    assert parts - 1 == len(tiles)
    assert sheet.shape[0] <= 12 + rows * (48 + 58)


def test_captions_of_any_length_stay_in_their_cell():
    tiles = [np.zeros((40, 60, 3), np.uint8)] * 2
    bare = preview.contact_sheet(tiles, ["", ""], 2, side=100)
    told = preview.contact_sheet(tiles, ["word " * 80, "einlangesWortOhneLeerzeichen" * 9], 2, side=100)
    assert bare.shape == told.shape
    changed = (bare != told).any(2)
    assert changed.any()
    assert not changed[:, 112:124].any(), "a caption runs into the gap between the cells"
    assert not changed[:, 224:].any()


@pytest.mark.parametrize("text", ["<b>&amp;", "日本語 のキャプション", "a\u202eb\x00c", "🙂 dog"])
def test_captions_in_any_script_are_drawn(text):
    assert preview.contact_sheet([GREY], [text], 1).shape[2] == 3


@pytest.mark.parametrize(("count", "captions", "columns"), [(2, 1, 3), (0, 0, 3), (1, 1, 0)])
def test_a_sheet_that_cannot_be_laid_out_is_refused(count, captions, columns):
    with pytest.raises(ValueError, match=f"got {count} tiles, {captions} captions, {columns} columns"):
        preview.contact_sheet([GREY] * count, [""] * captions, columns)


def test_png_bytes_hold_the_pixels_and_do_not_vary():
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    coded = preview.encode_png(image)
    assert coded == preview.encode_png(image)
    np.testing.assert_array_equal(
        cv2.imdecode(np.frombuffer(coded, np.uint8), cv2.IMREAD_COLOR)[..., ::-1], image
    )
