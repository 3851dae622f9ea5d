"""The SAM door against the official `SamPredictor`: same logits, same masks, same predicted IoU."""

import numpy as np
import pytest
import torch
from fixtures import small_sam
from fixtures.small_sam import photo
from segment_anything import SamPredictor
from segment_anything.modeling import Sam

from ppt import rle
from ppt.backbones.sam import SamModel, build_embedded_sam
from ppt.types import PointSet

CONFIG = small_sam.config(128, [8, 12, 16, 24], 32, depth=2)


@pytest.fixture(scope="module")
def network() -> Sam:
    torch.manual_seed(1)
    net = build_embedded_sam(CONFIG)
    for name, value in net.named_parameters():
        if "hypernetworks" in name and "weight" in name:
            value.data.mul_(3)
    return net.eval().requires_grad_(False)


def point_set(rng, count, height, width):
    xy = rng.uniform((0, 0), (width, height), (count, 2)).astype(np.float32)
    labels = rng.permutation(np.resize([1, 0, 1, -1], count)).astype(np.int8)
    return PointSet(xy, labels, 1.0)


@pytest.mark.parametrize("prompt_batch", [1, 3, 8])
@pytest.mark.parametrize("size", [(128, 128), (97, 61), (60, 211), (300, 180), (40, 25)])
def test_logits_masks_and_scores_are_the_predictors(network, size, prompt_batch):
    """Point sets of mixed lengths, in one call, against one official call each."""
    height, width = size
    rng = np.random.default_rng(5)
    image = photo(height, width)
    prompts = [point_set(rng, count, height, width) for count in (1, 4, 2, 4, 1, 7, 4, 4, 2)]
    official = SamPredictor(network)
    official.set_image(image)
    ours = SamModel(network, prompt_batch, "0" * 64, CONFIG)
    embedding = ours.embed(image)
    torch.testing.assert_close(embedding.features, official.get_image_embedding(), rtol=0, atol=0)
    logits = {index: (values, scores) for index, values, scores in ours.logits(embedding, prompts)}
    candidates = ours.predict(embedding, prompts)
    assert sorted(logits) == list(range(len(prompts)))
    assert len(candidates) == len(prompts)
    areas = []
    for index, points in enumerate(prompts):
        masks, scores, _ = official.predict(
            points.xy, points.labels, multimask_output=True, return_logits=True
        )
        torch.testing.assert_close(logits[index][0], torch.from_numpy(masks), rtol=0, atol=1e-5)
        torch.testing.assert_close(logits[index][1], torch.from_numpy(scores), rtol=0, atol=1e-5)
        np.testing.assert_allclose(candidates[index].predicted_iou, scores, rtol=0, atol=1e-5)
        for found, expected in zip(candidates[index].rles, masks > network.mask_threshold, strict=True):
            assert found == rle.encode(expected)
            areas.append(expected.mean())
    assert min(areas) < 0.5 < max(areas), "the comparison would be vacuous on empty or full masks alone"


def test_padding_with_ignored_points_would_change_the_answer(network):
    """Why sets of different lengths are never padded into one call: SAM attends to label -1."""
    ours = SamModel(network, 8, "0" * 64, CONFIG)
    embedding = ours.embed(photo(80, 120))
    xy = np.array([[30, 40]], np.float32)
    short = PointSet(xy, np.array([1], np.int8), 1.0)
    padded = PointSet(np.concatenate([xy, xy * 0]), np.array([1, -1], np.int8), 1.0)
    values = {index: logits for index, logits, _ in ours.logits(embedding, [short, padded])}
    assert float((values[0] - values[1]).abs().max()) > 1e-3
