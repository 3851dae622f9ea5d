"""Non-target activation: how much a map lights up things that share the target's name and are not meant.

TALENT (arXiv 2604.00609) names the trouble and gives no formula; the measures are ours. For an activation A
in [0, 1], the target T and its distractors D_k, each without the pixels that it shares with T:

- density: max_k mean_{D_k} A / (max_k mean_{D_k} A + mean_T A). 0 is clean, 0.5 tells nothing apart, above it
  another thing is meant. The headline: it does not grow with how large the distractors are.
- mass: the share of the activation on T and all D_k that lies on the D_k. It does grow with their size, so it
  is given beside `flat`, what a map that is the same everywhere has.
- rectified: mass of what exceeds the mean of the rest of the image, so that haze does not count.
- wrong_point: whether the strongest pixel lies on a distractor; pixels that tie share it.
- wrong_mask, several: of the mask A > threshold, whether it overlaps some distractor more than the target;
  whether it covers more than half of the target and of a distractor.
- blank: whether no pixel exceeds the threshold; such a map is in no mask's rate a success.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float

LEAST_AREA = 0.005
"""Share of the image below which a distractor is not counted."""
DRAWN = 1000
"""Samples of the bootstrap."""


@dataclass(frozen=True)
class NonTarget:
    """The measures of one map, all in [0, 1]."""

    density: float
    mass: float
    flat: float
    rectified: float
    wrong_point: float
    wrong_mask: float
    several: float
    blank: float


@dataclass(frozen=True)
class Interval:
    """A mean, and the 95 % interval of a bootstrap over images."""

    mean: float
    low: float
    high: float


def non_target(
    activation: Float[np.ndarray, "h w"],
    target: Bool[np.ndarray, "h w"],
    distractors: Sequence[Bool[np.ndarray, "h w"]],
    threshold: float = 0.5,
) -> NonTarget | None:
    """The measures of one map; None where no distractor is large enough, or nothing is meant.

    Raises ValueError where the activation is not finite.
    """
    if not np.isfinite(activation).all():
        raise ValueError("an activation must be finite")
    others = [own & ~target for own in distractors]
    others = [own for own in others if own.sum() >= LEAST_AREA * own.size]
    if not others or not target.any():
        return None
    a, every = activation.astype(np.float64), np.any(others, axis=0)
    wrong, right = max(float(a[own].mean()) for own in others), float(a[target].mean())
    rest = ~(every | target)
    clear = np.maximum(a - (a[rest].mean() if rest.any() else 0.0), 0)
    strongest = a == a.max()
    found = a > threshold
    overlaps = [_iou(found, own) for own in others]
    covered = [found[own].mean() > 0.5 for own in others]
    return NonTarget(
        density=_share(wrong, right),
        mass=_share(float(a[every].sum()), float(a[target].sum())),
        flat=_share(float(every.sum()), float(target.sum())),
        rectified=_share(float(clear[every].sum()), float(clear[target].sum())),
        wrong_point=float(every[strongest].mean()),
        wrong_mask=float(max(overlaps) > _iou(found, target)),
        several=float(any(covered) and found[target].mean() > 0.5),
        blank=float(not found.any()),
    )


def intervals(
    found: Sequence[NonTarget], images: Sequence[str], rng: np.random.Generator
) -> dict[str, Interval]:
    """The mean of every measure with its interval; images[i] is the image of found[i]: maps of one image
    stand or fall together.
    """
    if not found:
        raise ValueError("there is nothing to average: no map was measured")
    values = np.array([[getattr(one, field.name) for field in fields(NonTarget)] for one in found])
    names, place = np.unique(np.array(images), return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, place, values)
    counts = np.bincount(place)
    drawn = rng.integers(len(names), size=(DRAWN, len(names)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)[:, None]
    low, high = np.percentile(means, (2.5, 97.5), axis=0)
    return {
        field.name: Interval(float(values[:, i].mean()), float(low[i]), float(high[i]))
        for i, field in enumerate(fields(NonTarget))
    }


def _share(wrong: float, right: float) -> float:
    """0 where there is neither."""
    return float(wrong / (wrong + right)) if wrong + right > 0 else 0.0


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 0.0
