import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppt.relevance import contrast, relevance_maps
from ppt.types import DenseFeatures

EMPTY = np.array([0, 1], np.float32)


def features(*rows):
    return DenseFeatures(np.array(rows, np.float32), 20, 30)


def unit(*rows):
    vectors = np.array(rows, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_plain_map_is_the_cosine_of_each_cell():
    grid = features([[1, 0], [0, 1]], [[0.6, 0.8], [-1, 0]])
    (found,) = relevance_maps(grid, unit([1, 0]), EMPTY, "none")
    np.testing.assert_allclose(found.values, [[1, 0], [0.6, -1]], atol=1e-7)
    assert (found.height, found.width) == (20, 30)


def test_empty_text_is_subtracted():
    grid = features([[1, 0], [0, 1]])
    (found,) = relevance_maps(grid, unit([1, 0]), EMPTY, "empty_text")
    np.testing.assert_allclose(found.values, [[1, -1]], atol=1e-7)


def test_other_texts_leave_what_is_the_sentences_own():
    grid = features([[1, 0], [0, 1], [0.6, 0.8]])
    first, second = relevance_maps(grid, unit([1, 0], [0, 1]), EMPTY, "other_texts")
    np.testing.assert_allclose(first.values, [[1, -1, -0.2]], atol=1e-6)
    np.testing.assert_allclose(second.values, -first.values, atol=1e-6)


def test_a_lone_sentence_falls_back_on_the_empty_text():
    grid = features([[1, 0], [0.6, 0.8]])
    alone = relevance_maps(grid, unit([1, 0]), EMPTY, "other_texts")[0]
    empty = relevance_maps(grid, unit([1, 0]), EMPTY, "empty_text")[0]
    np.testing.assert_array_equal(alone.values, empty.values)


def test_better_fitting_company_counts_more():
    # The second company sentence fits the whole image (mean 0.9 against 0.1): it must dominate what is
    # subtracted.
    grid = features([[0.5, 0.1, 0.9], [0.5, 0.1, 0.9]])
    texts = np.eye(3, dtype=np.float32)
    found = relevance_maps(grid, texts, texts[0], "other_texts")[0]
    weight = np.exp(2 * 0.9) / (np.exp(2 * 0.1) + np.exp(2 * 0.9))
    np.testing.assert_allclose(found.values, 0.5 - (1 - weight) * 0.1 - weight * 0.9, atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.sampled_from(["none", "empty_text"]), st.integers(0, 2**16))
def test_a_map_does_not_depend_on_its_company(n, redundancy, seed):
    rng = np.random.default_rng(seed)
    grid = DenseFeatures(rng.standard_normal((3, 4, 8)).astype(np.float32), 30, 40)
    texts = unit(*rng.standard_normal((n, 8)))
    together = relevance_maps(grid, texts, texts[0], redundancy)
    for text, found in zip(texts, together, strict=True):
        alone = relevance_maps(grid, text[None], texts[0], redundancy)[0]
        np.testing.assert_array_equal(found.values, alone.values)


def test_contrast_by_hand():
    values = np.array([[3, 1], [1, 1]], np.float32)
    assert contrast(values) == pytest.approx(1.5 / np.sqrt(0.75))
    assert contrast(np.ones((2, 2), np.float32)) == 0.0
    assert contrast(np.full((7, 9), 0.2, np.float32)) == 0.0
