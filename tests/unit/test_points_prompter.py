"""From examples to prompts by a generator: no evidence, no points."""

import numpy as np
import pytest
import torch

from ppt.points.generator import PointGenerator
from ppt.points.prompter import Prompter
from ppt.points.scene import Example
from ppt.settings import PointsConfig
from ppt.types import DenseFeatures, RelevanceMap


@pytest.fixture(scope="module")
def prompter():
    torch.manual_seed(0)
    network = PointGenerator(dimension=5, width=16, sets=3, points=4).eval()
    torch.nn.init.zeros_(network.classes[-1].weight)
    network.classes[-1].bias.data = torch.tensor([1.0, 0, 0])  # every point is positive
    return Prompter(PointsConfig(method="generator", sets=2), network)


def example(values: np.ndarray) -> Example:
    rng = np.random.default_rng(0)
    features = DenseFeatures(rng.random((*values.shape, 5), np.float32), 60, 80)
    return Example(features, RelevanceMap(values.astype(np.float32), 60, 80), rng.random((2, 5), np.float32))


SOME = np.random.default_rng(1).random((6, 8))


@pytest.mark.parametrize("value", [0.0, 0.7, np.nan, np.inf])
def test_without_evidence_there_are_no_points(prompter, value):
    [prompts] = prompter([example(np.full((6, 8), value))])
    assert [len(prompt.points.labels) for prompt in prompts] == [0]
    assert prompts[0].points.reasons == ("no_evidence",)


def test_a_map_that_is_a_number_but_for_one_cell_is_no_evidence(prompter):
    holed = SOME.copy()
    holed[2, 3] = np.nan
    [prompts] = prompter([example(holed)])
    assert prompts[0].points.reasons == ("no_evidence",)


def test_no_evidence_beside_evidence_harms_nobody(prompter):
    alone = prompter([example(SOME)])
    found, nothing = prompter([example(SOME), example(np.full((6, 8), np.nan))])
    assert len(found) == 2
    for one, other in zip(alone[0], found, strict=True):
        np.testing.assert_allclose(one.points.xy, other.points.xy, atol=1e-3)
    assert len(nothing) == 1


def test_a_generator_that_would_ignore_every_point_asks_its_anchors():
    torch.manual_seed(0)
    network = PointGenerator(dimension=5, width=16, sets=3, points=4).eval()
    torch.nn.init.zeros_(network.classes[-1].weight)
    network.classes[-1].bias.data = torch.tensor([0.0, 0, 1])
    [prompts] = Prompter(PointsConfig(method="generator"), network)([example(SOME)])
    assert [prompt.points.labels.tolist() for prompt in prompts] == [[1]] * 3
