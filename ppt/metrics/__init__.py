"""How good are masks against the truth, with every convention named.

A sample is one sentence; I and U are the pixels in both masks and in either; IoU = I / U. Without a
prediction IoU is 0 and U the truth's area: failures stay in all denominators. Scores are fractions in [0, 1].

`conventions`: the seven switches in which published evaluators differ. `samples`: one sentence's score.
`summaries`: mIoU, oIoU, Prec@X, PointM, gIoU with N-acc and T-acc, in whole and in groups. `groups`: by size,
length, positional words and distractors. `ranking`: what a score told without truth is worth. `bootstrap`:
whether two sets of predictions differ.
"""

from ppt.metrics.conventions import Conventions
from ppt.metrics.ranking import ranking, spearman
from ppt.metrics.samples import Sample, Score, point_hits, score
from ppt.metrics.summaries import (
    THRESHOLDS,
    breakdown,
    generalised,
    miou,
    oiou,
    pointm,
    precision_at,
    report,
    summarise,
)

__all__ = [
    "THRESHOLDS",
    "Conventions",
    "Sample",
    "Score",
    "breakdown",
    "generalised",
    "miou",
    "oiou",
    "point_hits",
    "pointm",
    "precision_at",
    "ranking",
    "report",
    "score",
    "spearman",
    "summarise",
]
