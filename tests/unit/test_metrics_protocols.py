"""The switches and the shipped protocols on small masks, with every number worked by hand.

Four sentences. `overlap`: 4x4 pixels; two polygons of one thing, rows 0 and 1, and rows 1 and 2, so that any
has 12 pixels and exactly one has rows 0 and 2, 8; the probabilities are 0.9 in rows 0 and 1, 0.4 in row 2.
`half`: 4x4 pixels; true are rows 0 and 1, predicted row 0 alone: IoU 4/8, exactly one half. `nothing`: 4x4
pixels, true and predicted nowhere. `lost`: 4x8 pixels, the first of whose rows is true, with no prediction.
"""

from pathlib import Path

import numpy as np
import pytest

from ppt import metrics, rle
from ppt.config import load_config
from ppt.metrics import Conventions, Sample
from ppt.settings import EvaluateConfig

CONFIGS = Path(__file__).parents[2] / "configs"


def rows(*numbers, width=4):
    mask = np.zeros((4, width), bool)
    mask[list(numbers)] = True
    return rle.encode(mask)


def probabilities(*values):
    return np.repeat(np.array(values)[:, None], 4, axis=1)


POLYGONS = {"overlap": [rows(0, 1), rows(1, 2)], "half": [rows(0, 1)], "nothing": [rows()]}
ANSWERS = {
    "overlap": probabilities(0.9, 0.9, 0.4, 0.1),
    "half": probabilities(0.9, 0.1, 0.1, 0.1),
    "nothing": probabilities(0.1, 0.1, 0.1, 0.1),
}


def judged(empty="zero", at_least=True, resolution="native", threshold=0.5, overlap="any"):
    """The four sentences' scores in whole."""
    conventions = Conventions(empty, at_least, resolution=resolution)
    samples = [
        Sample(id, rle.joined(masks, overlap == "once"), rle.encode(ANSWERS[id] > threshold), None)
        for id, masks in POLYGONS.items()
    ]
    samples.append(Sample("lost", rows(0, width=8), None, None))
    return metrics.summarise([metrics.score(one, conventions) for one in samples], conventions)


# In pixels, native, "> 0" and cut at 0.5: overlap 8/12, half 4/8, nothing 0/0, lost 0/8.
BASE = {"miou": (8 / 12 + 4 / 8 + 0 + 0) / 4, "oiou": (8 + 4) / (12 + 8 + 0 + 8), "prec@0.5": 2 / 4}


@pytest.mark.parametrize(
    ("switch", "changed"),
    [
        ({}, {}),
        # nothing/nothing is 1, in mIoU and in every precision; it has no pixel for oIoU.
        ({"empty": "one"}, {"miou": (8 / 12 + 4 / 8 + 1 + 0) / 4, "prec@0.5": 3 / 4}),
        # half has exactly 0.5.
        ({"at_least": False}, {"prec@0.5": 1 / 4}),
        # Every image has 8 x 8 pixels: of those with 4 x 4 each pixel counts four times, of 4 x 8 twice.
        ({"resolution": 8}, {"oiou": (32 + 16) / (48 + 32 + 0 + 16)}),
        # Row 2 is predicted, too: overlap 12/12.
        (
            {"threshold": 0.35},
            {"miou": (12 / 12 + 4 / 8 + 0 + 0) / 4, "oiou": (12 + 4) / (12 + 8 + 0 + 8)},
        ),
        # Rows 0 and 2 are true, rows 0 and 1 predicted: overlap 4/12.
        (
            {"overlap": "once"},
            {
                "miou": (4 / 12 + 4 / 8 + 0 + 0) / 4,
                "oiou": (4 + 4) / (12 + 8 + 0 + 8),
                "prec@0.5": 1 / 4,
            },
        ),
    ],
    ids=["none", "empty", "at_least", "resolution", "threshold", "overlap"],
)
def test_each_switch_changes_what_it_should(switch, changed):
    found = judged(**switch)
    assert {name: found[name] for name in BASE} == pytest.approx({**BASE, **changed})
    assert (found["n"], found["missing"]) == (4, 1)


PROTOCOLS = {
    # Once, cut at 0.5, at 480 x 480: a pixel of 4 x 4 is 14,400 there, one of 4 x 8 is 7,200. In units of
    # 14,400: overlap 4/12, half 4/8, nothing 0/0, lost 0/4; half counts for Prec@0.5.
    "lavt": ("raw", (4 / 12 + 4 / 8) / 4, (4 + 4) / (12 + 8 + 4), 1 / 4),
    # Any, cut at 0.35: overlap 12/12, half 4/8, lost 0/8 native; half does not count.
    "etris": ("sent", (12 / 12 + 4 / 8) / 4, (12 + 4) / (12 + 8 + 8), 1 / 4),
    "talent": ("sent", (12 / 12 + 4 / 8) / 4, (12 + 4) / (12 + 8 + 8), 1 / 4),
    # Once, cut at 0.5 as the default has it: overlap 4/12, half 4/8, lost 0/8 native; half counts.
    "zero_shot_ris": ("raw", (4 / 12 + 4 / 8) / 4, (4 + 4) / (12 + 8 + 8), 1 / 4),
    "tris": ("sent", (4 / 12 + 4 / 8) / 4, (4 + 4) / (12 + 8 + 8), 1 / 4),
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_gives_its_numbers(name):
    config = load_config(CONFIGS / f"protocol_{name}.yaml")
    how = config.evaluate
    found = judged(
        how.empty, how.at_least, how.resolution, config.predictions.threshold, config.records.overlap
    )
    sentence, *expected = PROTOCOLS[name]
    assert [found["miou"], found["oiou"], found["prec@0.5"]] == pytest.approx(expected)
    assert found["prec@0.9"] == (1 / 4 if config.predictions.threshold < 0.4 else 0)
    assert (config.records.sentence, how.unit) == (sentence, "sentence")


def test_every_protocol_is_here_and_says_all_that_it_stands_for():
    shipped = {path.stem.removeprefix("protocol_") for path in CONFIGS.glob("protocol_*.yaml")}
    assert shipped == set(PROTOCOLS)
    for name in shipped:
        evaluate = load_config(CONFIGS / f"protocol_{name}.yaml").evaluate
        assert evaluate.model_fields_set == set(EvaluateConfig.model_fields) - {"nta"}


def test_a_small_thing_may_be_lost_at_another_resolution_and_is_still_meant():
    """One true pixel of 8 x 8, at row and column 1: of 2 x 2 the nearest of 8 x 8 are those at 2 and 6."""
    mask = np.zeros((8, 8), bool)
    mask[1, 1] = True
    for empty, iou in (("zero", 0.0), ("one", 1.0)):
        conventions = Conventions(empty, True, resolution=2)
        found = metrics.score(Sample("a", rle.encode(mask), rle.encode(mask), None), conventions)
        assert (found.intersection, found.union, found.iou, found.target) == (0, 0, iou, True)
