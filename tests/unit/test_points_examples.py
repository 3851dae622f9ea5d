"""What the generator reads and says: batches of unlike examples, frames, labels, order."""

from dataclasses import fields

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from ppt.points.examples import answers, from_pixels, to_pixels
from ppt.points.generator import IGNORED, NEGATIVE, POSITIVE, PointSets
from ppt.points.scene import Example, cell_centres, collate
from ppt.types import DenseFeatures, RelevanceMap


def example(rows: int, columns: int, words: int, seed: int = 0) -> Example:
    rng = np.random.default_rng(seed)
    features = DenseFeatures(rng.random((rows, columns, 5), np.float32), 60, 80)
    relevance = RelevanceMap(rng.random((rows, columns), np.float32) * 3 - 1, 60, 80)
    return Example(features, relevance, rng.random((words, 5), np.float32))


def test_unlike_examples_are_padded_and_said_to_be():
    one, other = example(3, 4, 6), example(2, 2, 9, seed=1)
    scene = collate([one, other])
    assert scene.cells.shape == (2, 3, 4, 5)
    assert scene.words.shape == (2, 9, 5)
    assert scene.has_cell.sum((1, 2)).tolist() == [12, 4]
    assert scene.has_word.sum(1).tolist() == [6, 9]
    np.testing.assert_array_equal(scene.cells[0].numpy(), one.features.values)
    np.testing.assert_array_equal(scene.cells[1, :2, :2].numpy(), other.features.values)
    assert (scene.relevance[0].min(), scene.relevance[0].max()) == (0, 1)
    np.testing.assert_allclose(scene.xy[1, 1, :2], [[0.25, 0.75], [0.75, 0.75]])


def test_a_flat_map_is_read_as_nothing():
    flat = example(3, 4, 2)
    flat = Example(flat.features, RelevanceMap(np.full((3, 4), 0.3, np.float32), 60, 80), flat.words)
    assert collate([flat]).relevance.abs().sum() == 0


def test_cells_are_where_the_images_pixels_are():
    xy = to_pixels(cell_centres(2, 4).reshape(-1, 2), (10, 40))
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
    xy = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).expand(1, 3, 2, 2)
    shapes = torch.arange(3 * 12).view(1, 3, 12) / 12.0
    rest = torch.zeros(1, 3, 2, 12), shapes, torch.zeros(1, 3, dtype=torch.long), torch.zeros(1, 12)
    return PointSets(xy, classes, *rest)


SURE = torch.tensor([[0.0, 2.0, 1.0]])


def test_the_surest_set_comes_first():
    [found] = answers(sets(), SURE, [example(3, 4, 1)])
    assert [prompt.points.labels.tolist() for prompt in found] == [[1], [1, 1], [1, 0]]
    shares = np.exp([2, 1, 0]) / np.exp([2, 1, 0]).sum()
    np.testing.assert_allclose([prompt.points.confidence for prompt in found], shares, rtol=1e-5)
    np.testing.assert_allclose(found[1].points.xy, [[-0.5, -0.5], [79.5, 59.5]])
    assert found[0].points.reasons == ("generator",)


def test_a_set_comes_with_its_shape_on_the_images_own_grid():
    padded = sets()
    [found, _] = answers(
        PointSets(*(torch.cat([getattr(padded, f.name)] * 2) for f in fields(padded))),
        SURE.expand(2, -1),
        [example(2, 3, 1), example(3, 4, 1)],
    )
    expected = torch.sigmoid(torch.arange(12, 24).view(3, 4)[:2, :3] / 12.0)
    np.testing.assert_allclose(found[0].map.values, expected.numpy(), rtol=1e-6)
    assert (found[0].map.height, found[0].map.width) == (60, 80)
