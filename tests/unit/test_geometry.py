import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from segment_anything.utils.transforms import ResizeLongestSide

from ppt.geometry import (
    grid_to_pixels,
    longest_side_size,
    pixels_to_grid,
    pixels_to_sam,
    resize_map_to_image,
    short_side_size,
)

sides = st.integers(1, 4000)


def test_grid_to_pixels_puts_cell_centres_where_a_ruler_does():
    xy = np.array([[0, 0], [3, 1], [-0.5, -0.5], [3.5, 1.5]], np.float32)
    pixels = grid_to_pixels(xy, grid=(2, 4), image=(10, 40))
    assert pixels.shape == (4, 2)
    assert pixels.dtype == np.float32
    # cells are 10 wide and 5 high; the first spans pixels 0..9, centre 4.5; corners are image corners
    np.testing.assert_allclose(pixels, [[4.5, 2], [34.5, 7], [-0.5, -0.5], [39.5, 9.5]])


@given(x=st.floats(0, 1), y=st.floats(0, 1), gh=st.integers(1, 64), gw=st.integers(1, 64), h=sides, w=sides)
def test_grid_and_pixels_round_trip(x: float, y: float, gh: int, gw: int, h: int, w: int):
    xy = np.array([[x * gw - 0.5, y * gh - 0.5]], np.float32)
    there = grid_to_pixels(xy, (gh, gw), (h, w))
    np.testing.assert_allclose(pixels_to_grid(there, (gh, gw), (h, w)), xy, atol=1e-3)
    assert -0.501 <= there[0, 0] <= w - 0.499


def test_pixels_to_grid_of_no_points_is_no_points():
    assert pixels_to_grid(np.zeros((0, 2), np.float32), (2, 2), (4, 4)).shape == (0, 2)


def test_pixels_to_grid_names_an_empty_size():
    with pytest.raises(ValueError, match=r"source size .* got 0x7"):
        pixels_to_grid(np.zeros((1, 2), np.float32), (2, 2), (0, 7))


@given(h=sides, w=sides, x=st.floats(0, 1), y=st.floats(0, 1))
def test_sam_coordinates_and_sizes_are_those_of_sam(h: int, w: int, x: float, y: float):
    official = ResizeLongestSide(1024)
    size = longest_side_size(h, w, 1024)
    theirs = official.get_preprocess_shape(h, w, 1024)
    assert size == (max(1, theirs[0]), max(1, theirs[1]))
    if min(theirs) > 0:
        xy = np.array([[x * w, y * h]], np.float64)
        np.testing.assert_allclose(
            pixels_to_sam(xy, (h, w), size), official.apply_coords(xy, (h, w)), 1e-6, 1e-6
        )


def test_pixels_to_sam_scales_each_axis_by_its_own_ratio():
    got = pixels_to_sam(np.array([[10, 4]], np.float32), image=(8, 20), resized=(16, 10))
    np.testing.assert_array_equal(got, np.array([[5, 8]], np.float32))
    with pytest.raises(ValueError, match=r"resized size .* got 16x0"):
        pixels_to_sam(np.zeros((1, 2), np.float32), image=(8, 20), resized=(16, 0))


def test_longest_side_size_keeps_a_thin_image_one_pixel_wide():
    assert longest_side_size(1, 5000, 1024) == (1, 1024)
    with pytest.raises(ValueError, match=r"image size .* got 0x5"):
        longest_side_size(0, 5, 1024)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (224, 304)), ((224, 224), (224, 224)), ((1, 5000), (16, 1024)), ((100, 1000), (96, 1024))],
)
def test_short_side_size_by_hand(size: tuple[int, int], expected: tuple[int, int]):
    assert short_side_size(*size, target=224, multiple=16, max_long=1024) == expected


@given(h=sides, w=sides, target=st.integers(16, 600), multiple=st.integers(1, 32), spare=st.integers(0, 2000))
def test_short_side_size_is_whole_patches_within_the_cap(
    h: int, w: int, target: int, multiple: int, spare: int
):
    most = multiple + spare
    size = short_side_size(h, w, target, multiple, most)
    assert all(side % multiple == 0 and multiple <= side <= most for side in size)
    assert short_side_size(w, h, target, multiple, most) == size[::-1]


def test_short_side_size_names_a_cap_below_one_patch():
    with pytest.raises(ValueError, match="patch of 16 pixels, got 7"):
        short_side_size(10, 10, target=32, multiple=16, max_long=7)


def test_resize_map_by_hand():
    got = resize_map_to_image(np.array([[0, 4]], np.float32), height=2, width=4)
    np.testing.assert_array_equal(got, np.array([[0, 1, 3, 4]] * 2, np.float32))
    assert got.dtype == np.float32


@given(
    gh=st.integers(1, 8),
    gw=st.integers(1, 8),
    h=st.integers(1, 40),
    w=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_resize_map_stays_in_range_and_flips_with_its_map(gh: int, gw: int, h: int, w: int, seed: int):
    values = np.random.default_rng(seed).random((gh, gw), dtype=np.float32)
    got = resize_map_to_image(values, h, w)
    assert got.shape == (h, w)
    assert values.min() - 1e-6 <= got.min() <= got.max() <= values.max() + 1e-6
    np.testing.assert_allclose(resize_map_to_image(values[::-1], h, w), got[::-1], atol=1e-5)
    np.testing.assert_array_equal(resize_map_to_image(values, gh, gw), values)


def test_resize_map_names_an_empty_image():
    with pytest.raises(ValueError, match=r"image size .* got 3x0"):
        resize_map_to_image(np.zeros((1, 1), np.float32), 3, 0)
