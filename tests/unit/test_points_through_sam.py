"""Points through frozen SAM: the gradient arrives, ignored points are none, the grid is SAM's own."""

import numpy as np
import pytest
import torch

from ppt import rle
from ppt.backbones.sam import ImageEmbedding, load_sam
from ppt.points.generator import IGNORED, POSITIVE, PointSets
from ppt.points.through_sam import Asked, sam_loss, verdicts
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
    masks = [rle.decode(mask) for mask in candidates.rles]
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


def sets_at(xy: list[list[float]]) -> PointSets:
    """One pair with one set, its points in [0, 1] of the image, the first positive."""
    k = len(xy)
    classes = torch.nn.functional.one_hot(torch.tensor([[[POSITIVE] + [IGNORED] * (k - 1)]]), 3).float()
    return PointSets(
        torch.tensor([[xy]], requires_grad=True),
        classes,
        *(torch.zeros(1, 1, k, 4), torch.zeros(1, 1, 4), torch.zeros(1, 1, dtype=torch.long)),
        torch.zeros(1, 4),
    )


def disc(sam, embedding) -> torch.Tensor:
    rows, columns = sam.low_size(embedding)
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return (torch.hypot(x * WIDTH / columns - 80, y * HEIGHT / rows - 45) < 25).float()


INSIDE, OUTSIDE = [80 / WIDTH, 45 / HEIGHT], [20 / WIDTH, 20 / HEIGHT]


def test_a_point_that_gains_nothing_is_to_be_ignored(sam, embedding):
    """The anchor alone has the disc already."""
    asked = [Asked(0, 0, embedding, disc(sam, embedding))]
    classes, told = verdicts(sam, sets_at([INSIDE, INSIDE, OUTSIDE]), asked)
    assert classes.tolist() == [[[POSITIVE, IGNORED, IGNORED]]]
    assert told.tolist() == [[[1, 1, 1]]]


def test_a_point_that_sam_does_better_with_says_its_side(sam, embedding):
    """Two discs are wanted; SAM's best mask of the first alone leaves out the second."""
    image = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    y, x = np.indices((HEIGHT, WIDTH))
    for centre in (25, 95):
        image[np.hypot(x - centre, y - 45) < 20] = (210, 60, 50)
    found = sam.embed(image)
    both = ImageEmbedding(found.features.clone(), found.input_size, found.original_size)
    rows, columns = sam.low_size(both)
    low = torch.nn.functional.interpolate(
        torch.from_numpy(image[None, None, ..., 0] > 100).float(), (rows, columns), mode="area"
    )[0, 0]
    left, right = [25 / WIDTH, 0.5], [95 / WIDTH, 0.5]
    classes, _ = verdicts(sam, sets_at([left, right, OUTSIDE]), [Asked(0, 0, both, low)])
    assert classes[0, 0, :2].tolist() == [POSITIVE, POSITIVE]


def test_no_point_helps_an_anchor_outside_of_its_thing(sam, embedding):
    asked = [Asked(0, 0, embedding, disc(sam, embedding))]
    classes, _ = verdicts(sam, sets_at([OUTSIDE, INSIDE]), asked)
    assert classes.tolist() == [[[POSITIVE, IGNORED]]]


def test_sets_that_nobody_asked_are_not_told(sam):
    _, told = verdicts(sam, sets_at([INSIDE, OUTSIDE]), [])
    assert told.sum() == 0
    assert sam_loss(sam, sets_at([INSIDE]), []).item() == 0


def test_the_mask_loss_moves_the_points(sam, embedding):
    """Those that are ignored too: they may become worth saying."""
    sets = sets_at([INSIDE, OUTSIDE])
    sam_loss(sam, sets, [Asked(0, 0, embedding, disc(sam, embedding))]).backward()
    assert (sets.xy.grad.abs().sum(-1) > 0).all()
