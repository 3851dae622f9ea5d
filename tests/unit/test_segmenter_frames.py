import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppt.segmenter.frames import Frame


def disc(height, width):
    y, x = np.mgrid[:height, :width]
    return (x - 0.6 * width) ** 2 + (y - 0.4 * height) ** 2 <= (0.3 * min(height, width)) ** 2


@pytest.mark.parametrize(("height", "width"), [(480, 640), (640, 427), (1000, 1000), (300, 1200)])
def test_there_and_back_a_mask_is_itself(height, width):
    frame, mask = Frame(416, height, width), disc(height, width)
    logits = frame.covered(mask, 416) - 0.5
    back = frame.opened(logits) > 0
    assert (back & mask).sum() / (back | mask).sum() > 0.99


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([16, 32, 64]))
def test_the_shares_of_a_mask_are_its_area(height, width, grid):
    frame = Frame(64, height, width)
    high, wide = frame.inner
    assert max(high, wide) == 64
    assert frame.there(grid).sum() * (64 / grid) ** 2 == pytest.approx(high * wide, rel=1e-4)
    half = np.zeros((height, width), bool)
    half[:, : width // 2] = True
    share = frame.covered(half, grid).sum() / frame.there(grid).sum()
    assert share == pytest.approx((width // 2) / width, abs=0.51 / wide + 1e-4)
    assert frame.opened(frame.covered(half, grid)).shape == (height, width)


def test_a_mask_of_another_image_is_refused():
    with pytest.raises(ValueError, match=r"a mask of \(3, 4\) in the frame of an image of 4x3"):
        Frame(32, 4, 3).covered(np.zeros((3, 4), bool), 8)
