"""What a score told without truth is worth: how it ranks labels, and whether it means what it says."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

BINS = 10
"""Of the reliability plot, with equally many labels each."""
WORST = 0.2
"""Share of the labels that are left out to see what that gains."""


def ranking(
    quality: Float[np.ndarray, " n"], iou: Float[np.ndarray, " n"], bands: Sequence[str]
) -> dict[str, Any]:
    """quality: of each label, in [0, 1]; iou: of the same with the truth; bands: keep, review or drop.

    n; spearman, the rank correlation of the two, None where one of them is constant; reliability, rows {n,
    quality, iou}, the means of `BINS` bins of equally many labels, and error, the mean distance between the
    two (the expected calibration error); without_worst, the mean IoU of what is left without the fifth of the
    lowest quality, and gained, by how much that is more; bands, {n, iou} of each there is.
    """
    order = np.argsort(quality, kind="stable")
    parts = [part for part in np.array_split(order, BINS) if len(part)]
    bins = [{"n": len(part), "quality": _mean(quality[part]), "iou": _mean(iou[part])} for part in parts]
    distance = sum(one["n"] * abs(one["quality"] - one["iou"]) for one in bins)
    left = _mean(iou[order[int(len(order) * WORST) :]])
    of = {band: np.array([one == band for one in bands]) for band in sorted(set(bands))}
    return {
        "n": len(quality),
        "spearman": spearman(quality, iou),
        "error": distance / max(len(quality), 1),
        "without_worst": left,
        "gained": left - _mean(iou),
        "bands": {band: {"n": int(own.sum()), "iou": _mean(iou[own])} for band, own in of.items()},
        "reliability": bins,
    }


def spearman(xs: Float[np.ndarray, " n"], ys: Float[np.ndarray, " n"]) -> float | None:
    """The rank correlation in [-1, 1]; None where a side does not vary."""
    if len(xs) < 2 or np.ptp(xs) == 0 or np.ptp(ys) == 0:
        return None
    return float(np.corrcoef(rankdata(xs), rankdata(ys))[0, 1])


def _mean(values: Float[np.ndarray, " k"]) -> float:
    return float(values.mean()) if len(values) else 0.0
