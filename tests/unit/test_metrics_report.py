"""What the report's table shows of an evaluation: columns, groups in their order, and every convention."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from ppt import metrics, rle
from ppt.metrics import Conventions, Sample
from ppt.metrics.conventions import above
from ppt.report import overview
from ppt.report.gather import Run

CONVENTIONS = Conventions("zero", True)


def sample(length, pixels):
    mask = np.zeros((4, 4), bool)
    mask.ravel()[:pixels] = True
    return Sample("a", rle.encode(mask), rle.encode(mask), None, split="val", more={"length": length})


def test_an_evaluation_is_shown_with_its_groups_and_both_binarisations():
    lengths = ("11+", "3-5", "1-2", "6-10")
    scores = [metrics.score(sample(length, 8), CONVENTIONS) for length in lengths]
    scores.append(metrics.score(sample("3-5", 0), CONVENTIONS))
    found = dict(metrics.report(scores, CONVENTIONS))
    cut = replace(CONVENTIONS, binarisation=above(0.35))
    found["segmenter"] = {"all": found["labels"], "conventions": cut.describe()}
    shown = overview.metrics(Run(Path("run"), {}, (), (), found, None))
    assert {"gIoU", "N-acc", "T-acc"} <= set(shown["columns"])
    assert [row["name"] for row in shown["rows"] if row["group"] == "length"] == ["1-2", "3-5", "6-10", "11+"]
    told = dict(shown["conventions"])
    assert told["binarisation"] == "SAM's logits > 0"
    assert told["binarisation, segmenter"] == "probability > 0.35"
    assert set(CONVENTIONS.describe()) <= set(told)
