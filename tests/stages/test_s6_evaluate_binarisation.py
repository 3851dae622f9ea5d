"""What a segmenter's mask is cut at: worked by hand, in the predictions, and where SAM draws in its place."""

import json
import math

import numpy as np
import pytest
import torch
from fixtures.walk import TINY, rows, settings, walk

from ppt import rle
from ppt.backbones.clip_towers import Words
from ppt.segmenter.decoders import Drawn
from ppt.segmenter.frames import Frame
from ppt.segmenter.model import Seen
from ppt.segmenter.reader import _opened
from ppt.store import Artifact, StaleArtifact


def seen(probabilities):
    """What a decoder would leave of one sentence whose cells have these probabilities."""
    logits = torch.tensor(probabilities).logit()[None, None]
    words = Words(torch.zeros(1, 2, 4), torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 4))
    drawn = Drawn(logits, torch.zeros_like(logits))
    return Seen(drawn, (), torch.zeros(1, dtype=torch.long), (), (), (), words, torch.zeros(1, 2, 4), None)


@pytest.mark.parametrize(
    ("threshold", "columns", "sure"),
    [(0.5, 1, 0.9), (0.35, 2, (0.9 + 0.4) / 2), (0.95, 0, 0.0)],
)
def test_a_pixel_is_in_the_mask_above_the_threshold(threshold, columns, sure):
    """Four columns of 0.9, 0.4, 0.2 and 0.1, in an image whose pixels are the cells."""
    values = np.repeat(np.array([[0.9, 0.4, 0.2, 0.1]], np.float32), 4, axis=0)
    found = _opened(seen(values.tolist()), Frame(4, 4, 4), threshold)
    expected = np.zeros((4, 4), bool)
    expected[:, :columns] = True
    assert (rle.decode(found.mask) == expected).all()
    assert found.sure == pytest.approx(sure)


def test_logits_are_enlarged_and_then_cut():
    """Cells of 0.99 and 0.3 over four pixels: the third has one part of the first cell and three of the
    second, of whose logits this is 0.51, a probability of 0.62; of the probabilities it would be 0.47.
    """
    inner = (1 * math.log(0.99 / 0.01) + 3 * math.log(0.3 / 0.7)) / 4
    assert inner == pytest.approx(0.51, abs=0.01)
    found = _opened(seen([[0.99, 0.3], [0.99, 0.3]]), Frame(4, 4, 4), 0.5)
    assert rle.decode(found.mask)[0].tolist() == [True, True, True, False]


def test_a_lower_threshold_makes_larger_masks_and_other_predictions(models, all_train, output):
    walk(settings(all_train, *TINY, truth=True), output, "predictions")
    before = rows(output, "predictions")
    lower = settings(all_train, *TINY, "predictions.threshold=0.05", truth=True)
    with pytest.raises(StaleArtifact, match=r"predictions\.threshold: 0\.5 -> 0\.05"):
        walk(lower, output, "predictions", "predictions")
    walk(lower, output, "predictions", "predictions", fresh=True)
    after = rows(output, "predictions")
    areas = [sum(_area(row) for row in found.values()) for found in (before, after)]
    assert areas[0] < areas[1]
    assert all(_area(before[id]) <= _area(after[id]) for id in before)
    # Evaluated under another config it says what it was made with, and that this is not what is asked.
    found = walk(settings(all_train, *TINY, truth=True), output, "evaluate", "evaluate")
    assert found.line().endswith("segmenter: probability > 0.05)")
    assert found.unmet[0].startswith("predictions.threshold is 0.5 in the config, but")
    metrics = json.loads((output / "evaluate" / "metrics.json").read_text())
    assert metrics["segmenter"]["conventions"]["binarisation"] == "probability > 0.05"


def test_where_sam_draws_nothing_is_cut(models, all_train, output):
    pointing = (*TINY, "segmenter.decoder=point", "segmenter.things=2")
    walk(settings(all_train, *pointing, truth=True), output, "predictions")
    assert "predictions" not in Artifact.open(output / "predictions").manifest.config
    other = settings(all_train, *pointing, "predictions.threshold=0.05", truth=True)
    found = walk(other, output, "evaluate", "predictions")
    assert found.line().endswith("segmenter: SAM's logits > 0)")
    assert found.unmet == ()


def _area(row):
    return rle.area(rle.from_json(row["segmentation"])) if row["segmentation"] else 0
