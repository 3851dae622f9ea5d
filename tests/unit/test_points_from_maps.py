import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ppt.points.from_maps import peak_points, read_points, surgery_points
from ppt.types import RelevanceMap

METHODS = [
    peak_points,
    lambda m: surgery_points(m, 0.8),
    lambda m: read_points(m, 0.8, 0.2, 30),
]


def one_hot(height, width, row, column, scale=10):
    values = np.zeros((height, width), np.float32)
    values[row, column] = 1
    return RelevanceMap(values, height * scale, width * scale)


def test_peak_is_the_centre_of_the_highest_cell():
    points = peak_points(one_hot(4, 6, row=1, column=4))
    np.testing.assert_allclose(points.xy, [[44.5, 14.5]])
    assert points.labels.tolist() == [1]
    assert points.reasons == ("peak",)


def test_peak_takes_the_first_of_equals():
    values = np.array([[0, 1], [1, 0]], np.float32)
    np.testing.assert_allclose(peak_points(RelevanceMap(values, 2, 2)).xy, [[1, 0]])


def test_surgery_has_as_many_negatives_as_positives_strongest_first():
    values = np.repeat(np.repeat(np.array([[1.0, 0.9], [0.1, 0.0]], np.float32), 2, 0), 2, 1)
    points = surgery_points(RelevanceMap(values, 40, 40), threshold=0.8)
    assert points.labels.tolist() == [1, 1, 0, 0]
    np.testing.assert_allclose(points.xy, [[9.5, 9.5], [29.5, 9.5], [29.5, 29.5], [9.5, 29.5]])


def test_surgery_is_capped_at_half_the_cells():
    values = np.ones((2, 3), np.float32)
    values[1, 2] = 0
    assert surgery_points(RelevanceMap(values, 20, 30), threshold=0.5).labels.tolist() == [1, 1, 1, 0, 0, 0]


def test_read_labels_positives_negatives_then_ignored_up_to_its_number():
    values = np.array([[1.0, 0.5, 0.0]], np.float32)
    everything = read_points(RelevanceMap(values, 10, 30), 0.8, 0.2, most=30)
    assert everything.labels.tolist() == [1, 0, -1]
    assert read_points(RelevanceMap(values, 10, 30), 0.8, 0.2, most=2).labels.tolist() == [1, 0]


def test_read_moves_points_towards_higher_relevance():
    values = np.array([[0.0, 0.9, 1.0, 0.85, 0.0, 0.0]], np.float32)[:, :3]
    strongest = read_points(RelevanceMap(values, 10, 30), 0.8, 0.2, most=1).xy[0]
    cells, likelihood = np.arange(3.0), np.exp([0.0, 0.9, 1.0])
    weight = np.exp(-((cells - 2) ** 2)) * likelihood
    assert strongest[0] == pytest.approx((weight @ cells / weight.sum() + 0.5) * 10 - 0.5, abs=1e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 3.0, np.nan, np.inf])
def test_no_evidence_gives_no_points(method, value):
    values = np.full((6, 6), value, np.float32)
    points = method(RelevanceMap(values, 60, 60))
    assert len(points.labels) == 0
    assert points.confidence == 0
    assert points.reasons == ("no_evidence",)


@settings(deadline=None, max_examples=60)
@given(
    arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.floats(-2, 2, width=16)),
    st.sampled_from(range(3)),
    st.integers(1, 500),
    st.integers(1, 500),
)
def test_points_lie_inside_the_image_and_positives_lead(values, method, height, width):
    points = METHODS[method](RelevanceMap(values, height, width))
    assert (points.xy >= -0.5).all()
    assert (points.xy <= [width - 0.5, height - 0.5]).all()
    positive = points.labels == 1
    assert positive[: positive.sum()].all()


@settings(deadline=None, max_examples=40)
@given(arrays(np.float32, (6, 8), elements=st.floats(-1, 1, width=16)), st.sampled_from(range(3)))
def test_points_do_not_depend_on_the_maps_scale(values, method):
    base = METHODS[method](RelevanceMap(values, 60, 80))
    doubled = METHODS[method](RelevanceMap(values * 2, 60, 80))
    np.testing.assert_array_equal(base.labels, doubled.labels)
    np.testing.assert_allclose(base.xy, doubled.xy, atol=1e-4)
