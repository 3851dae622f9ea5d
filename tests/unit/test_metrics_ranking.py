"""What a score is worth that is told without truth."""

import numpy as np
import pytest

from ppt import metrics

QUALITY = np.array([0.9, 0.1, 0.8, 0.6, 0.3])
IOU = np.array([1.0, 0.0, 0.6, 0.8, 0.4])


def test_five_labels_by_hand():
    found = metrics.ranking(QUALITY, IOU, ["keep", "drop", "keep", "review", "drop"])
    assert found["n"] == 5
    assert found["spearman"] == pytest.approx(0.9)  # two neighbours of five change places
    assert found["without_worst"] == pytest.approx(2.8 / 4)
    assert found["gained"] == pytest.approx(2.8 / 4 - 2.8 / 5)
    assert found["error"] == pytest.approx((0.1 + 0.1 + 0.2 + 0.2 + 0.1) / 5)
    assert found["bands"] == {
        "drop": {"n": 2, "iou": pytest.approx(0.2)},
        "keep": {"n": 2, "iou": pytest.approx(0.8)},
        "review": {"n": 1, "iou": pytest.approx(0.8)},
    }
    assert [one["quality"] for one in found["reliability"]] == pytest.approx([0.1, 0.3, 0.6, 0.8, 0.9])
    assert [one["iou"] for one in found["reliability"]] == pytest.approx([0.0, 0.4, 0.8, 0.6, 1.0])


def test_bins_hold_equally_many():
    found = metrics.ranking(np.linspace(0, 1, 25), np.linspace(0, 1, 25), ["keep"] * 25)
    assert [one["n"] for one in found["reliability"]] == [3] * 5 + [2] * 5
    assert found["spearman"] == pytest.approx(1)
    assert found["error"] == pytest.approx(0)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_nothing_to_rank(count):
    same = np.full(count, 0.5)
    found = metrics.ranking(same, same, ["review"] * count)
    assert (found["n"], found["spearman"], found["gained"], found["error"]) == (count, None, 0, 0)
