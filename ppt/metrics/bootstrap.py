"""Whether two sets of predictions for the same sentences differ: a paired bootstrap over images.

Sentences about one image stand or fall together, so images are drawn, with replacement, and with each of them
all of its sentences under both sets (paired: Efron & Tibshirani, An Introduction to the Bootstrap, 1993;
groups drawn whole: Davison & Hinkley, Bootstrap Methods and their Application, 1997, section 3.8).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ppt.metrics.conventions import Conventions
from ppt.metrics.samples import Score
from ppt.metrics.summaries import miou, oiou, precision_at, reaches

DRAWN = 10_000
"""Resamples."""
AT_ONCE = 100
"""Of them, those held in memory together."""
THRESHOLD = 0.5
MEASURES = ("miou", "oiou", f"prec@{THRESHOLD}")


@dataclass(frozen=True)
class Difference:
    """One measure under both sets, in [0, 1]; here less there, with its 95 % percentile interval; and the
    share of resamples in which the difference has not the sign that it has in whole.
    """

    here: float
    there: float
    difference: float
    low: float
    high: float
    flips: float


def paired(
    here: Sequence[Score], there: Sequence[Score], conventions: Conventions, rng: np.random.Generator
) -> dict[str, Difference]:
    """`MEASURES` -> how far the two differ; here[i] and there[i] are of one sentence.

    A sample whose image neither knows is an image of its own. Raises ValueError where the ids differ, or
    there is nothing to compare.
    """
    if not here or [one.id for one in here] != [one.id for one in there]:
        raise ValueError("only the same sentences, and at least one, can be compared")
    names, place = np.unique(np.array(_images(here, there)), return_inverse=True)
    columns = np.array(
        [
            (
                1, a.iou, b.iou, a.iou - b.iou, a.intersection, a.union, b.intersection, b.union,
                int(reaches(a, THRESHOLD, conventions)) - int(reaches(b, THRESHOLD, conventions)),
            )
            for a, b in zip(here, there, strict=True)
        ],
        dtype=np.float64,
    )  # fmt: skip
    sums = np.zeros((len(names), columns.shape[1]))
    np.add.at(sums, place, columns)
    whole = _differences(sums.sum(0, keepdims=True))[0]
    drawn = _differences(_resampled(sums, rng))
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
    flips = (np.sign(drawn) != np.sign(whole)).mean(0)
    values = [(miou(one), oiou(one), precision_at(THRESHOLD, one, conventions)) for one in (here, there)]
    return {
        name: Difference(
            values[0][i], values[1][i], float(whole[i]), float(low[i]), float(high[i]), float(flips[i])
        )
        for i, name in enumerate(MEASURES)
    }


def images(here: Sequence[Score], there: Sequence[Score]) -> int:
    """How many images the sentences are about."""
    return len(set(_images(here, there)))


def _images(here: Sequence[Score], there: Sequence[Score]) -> list[str]:
    return [a.image or b.image or f"only {a.id}" for a, b in zip(here, there, strict=True)]


def _resampled(sums: Float[np.ndarray, "i c"], rng: np.random.Generator) -> Float[np.ndarray, "r c"]:
    """The sums over `DRAWN` draws of as many images as there are."""
    count = len(sums)
    found: list[np.ndarray] = []
    for _ in range(DRAWN // AT_ONCE):
        drawn = rng.integers(count, size=(AT_ONCE, count)) + count * np.arange(AT_ONCE)[:, None]
        times = np.bincount(drawn.ravel(), minlength=AT_ONCE * count).reshape(AT_ONCE, count)
        found.append(times @ sums)
    return np.concatenate(found)


def _differences(sums: Float[np.ndarray, "r c"]) -> Float[np.ndarray, "r 3"]:
    """Of every row of sums the differences of the measures."""
    n, iou_here, iou_there, iou, both_here, either_here, both_there, either_there, hits = sums.T
    overall = _overall(both_here, either_here, iou_here / n) - _overall(
        both_there, either_there, iou_there / n
    )
    return np.stack([iou / n, overall, hits / n], axis=1).round(12)  # no sign by rounding alone


def _overall(both: np.ndarray, either: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    return np.where(either > 0, both / np.maximum(either, 1), otherwise)
