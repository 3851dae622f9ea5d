"""Points through frozen SAM: the gradient arrives, ignored points are none, the grid is SAM's own."""

import numpy as np
import pytest
import torch

from ppt import rle
from ppt.backbones.sam import ImageEmbedding, load_sam
from ppt.points.generator import IGNORED, NEGATIVE, POSITIVE
from ppt.points.through_sam import sam_labels
from ppt.types import PointSet

HEIGHT, WIDTH = 90, 120


@pytest.fixture(scope="module")
def sam():
    return load_sam("embedded", None, "cpu")


@pytest.fixture(scope="module")
def embedding(sam):
    image = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    y, x = np.indices((HEIGHT, WIDTH))
    image[np.hypot(x - 80, y - 45) < 25] = (210, 60, 50)
    found = sam.embed(image)
    return ImageEmbedding(found.features.clone(), found.input_size, found.original_size)


def logits(sam, embedding, xy, labels):
    return sam.mask_logits(embedding, torch.tensor(xy), torch.tensor(labels))


def test_the_mask_is_the_disc_under_the_point(sam, embedding):
    found = logits(sam, embedding, [[80.0, 45.0]], [1])
    assert found.shape == sam.low_size(embedding)
    rows, columns = found.shape
    inside = found > 0
    assert inside[rows // 2, round(columns * 80 / WIDTH)]
    assert not inside[rows // 2, round(columns * 20 / WIDTH)]


def test_it_is_the_mask_that_predict_gives(sam, embedding):
    """Parity with SAM's own path, but for the single mask and the low resolution."""
    found = logits(sam, embedding, [[80.0, 45.0]], [1]) > 0
    [candidates] = sam.predict(
        embedding, [PointSet(np.array([[80, 45]], np.float32), np.array([1], np.int8), 1.0)]
    )
    masks = [rle.decode(mask).astype(bool) for mask in candidates.rles]
    full = torch.nn.functional.interpolate(found[None, None].float(), (HEIGHT, WIDTH), mode="nearest")[0, 0]
    overlap = [(full.bool().numpy() & m).sum() / (full.bool().numpy() | m).sum() for m in masks]
    assert max(overlap) > 0.85


def test_the_gradient_reaches_the_points_and_nothing_of_sam(sam, embedding):
    xy = torch.tensor([[80.0, 45.0], [20.0, 20.0]], requires_grad=True)
    sam.mask_logits(embedding, xy, torch.tensor([1, 0])).sigmoid().sum().backward()
    assert (xy.grad.abs().sum(1) > 0).all()
    assert all(p.grad is None for p in sam._model.parameters())


def test_an_ignored_point_leaves_no_trace_wherever_it_lies(sam, embedding):
    """Label -1 stands for no place: the same bytes for any xy, and no gradient."""
    here = logits(sam, embedding, [[80.0, 45.0], [1.0, 2.0]], [1, -1])
    there = logits(sam, embedding, [[80.0, 45.0], [99.0, 80.0]], [1, -1])
    assert torch.equal(here, there)
    xy = torch.tensor([[80.0, 45.0], [1.0, 2.0]], requires_grad=True)
    sam.mask_logits(embedding, xy, torch.tensor([1, -1])).sum().backward()
    assert (xy.grad[1] == 0).all()


def test_classes_become_sams_labels():
    classes = torch.nn.functional.one_hot(torch.tensor([POSITIVE, NEGATIVE, IGNORED]), 3).float()
    assert sam_labels(classes).tolist() == [1, 0, -1]
