"""What the generator reads and says: batches of unlike examples, frames, labels, order."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from ppt.points.examples import (
    Example,
    answers,
    cell_centres,
    collate,
    from_pixels,
    to_pixels,
)
from ppt.points.generator import IGNORED, NEGATIVE, POSITIVE, PointSets
from ppt.types import DenseFeatures, RelevanceMap


def example(rows: int, columns: int, words: int, seed: int = 0) -> Example:
    rng = np.random.default_rng(seed)
    features = DenseFeatures(rng.random((rows, columns, 5), np.float32), 60, 80)
    relevance = RelevanceMap(rng.random((rows, columns), np.float32) * 3 - 1, 60, 80)
    return Example(features, relevance, rng.random((words, 7), np.float32))


def test_unlike_examples_are_padded_and_said_to_be():
    first, second = example(3, 4, 6), example(2, 2, 9, seed=1)
    scene = collate([first, second])
    assert scene.cells.shape == (2, 12, 5)
    assert scene.words.shape == (2, 9, 7)
    assert scene.has_cell.sum(1).tolist() == [12, 4]
    assert scene.has_word.sum(1).tolist() == [6, 9]
    np.testing.assert_array_equal(scene.cells[0].view(3, 4, 5).numpy(), first.features.values)
    np.testing.assert_array_equal(scene.cells[1, :4].view(2, 2, 5).numpy(), second.features.values)
    assert (scene.relevance.min(1).values[0], scene.relevance.max(1).values[0]) == (0, 1)
    np.testing.assert_allclose(scene.xy[1, :4], [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]])


def test_a_flat_map_is_read_as_nothing():
    flat = example(3, 4, 2)
    flat = Example(flat.features, RelevanceMap(np.full((3, 4), 0.3, np.float32), 60, 80), flat.words)
    assert collate([flat]).relevance.abs().sum() == 0


def test_cells_are_where_the_images_pixels_are():
    xy = to_pixels(cell_centres(2, 4), (10, 40))
    np.testing.assert_allclose(xy[:4], [[4.5, 2], [14.5, 2], [24.5, 2], [34.5, 2]])
    np.testing.assert_allclose(xy[4:, 1], 7)


@given(st.integers(1, 4000), st.integers(1, 4000), st.floats(0, 1, width=32), st.floats(0, 1, width=32))
def test_pixels_and_shares_are_inverse(height, width, x, y):
    xy = np.array([[x, y]], np.float32)
    np.testing.assert_allclose(from_pixels(to_pixels(xy, (height, width)), (height, width)), xy, atol=1e-4)


def sets() -> PointSets:
    classes = torch.full((1, 3, 2, 3), -5.0)
    classes[0, :, 0, POSITIVE] = 5
    classes[0, 0, 1, NEGATIVE] = classes[0, 1, 1, IGNORED] = classes[0, 2, 1, POSITIVE] = 5
    silent = torch.full((1, 1, 2, 3), 0.0)
    silent[..., NEGATIVE] = 1  # a set of negatives alone
    xy = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).expand(1, 4, 2, 2)
    confidence = torch.tensor([[0.0, 2.0, 1.0, 3.0]])
    return PointSets(xy, torch.cat([classes, silent], 1), torch.zeros(1, 4, 2, 4), confidence)


def test_the_surest_set_comes_first():
    [found] = answers(sets(), [(50, 100)])
    assert [points.labels.tolist() for points in found] == [[1], [1, 1], [1, 0]]
    shares = np.exp([2, 1, 0]) / np.exp([3, 2, 1, 0]).sum()
    np.testing.assert_allclose([points.confidence for points in found], shares, rtol=1e-5)
    np.testing.assert_allclose(found[1].xy, [[-0.5, -0.5], [99.5, 49.5]])
    assert found[0].reasons == ("generator",)
