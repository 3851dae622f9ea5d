"""From object-centric images, through mosaics of them, to referring pairs: what a batch is made of, and which
pairs are let in.

A schedule one can read: a source opens at a moment of the training, given in [0, 1], and its share of every
batch then grows over RAMP to its weight against those already open. Referring pairs are admitted from the
most confident down; no threshold decides, and no truth. The sources are PPT's (Dai & Yang, CVPR 2024), the
pacing ours: mosaics wait for nothing, since what they are made of is there before the first step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float

Source = Literal["object_centric", "mosaic", "referring"]
Order = Literal["easiest_first", "together", "hardest_first"]
SOURCES: tuple[Source, ...] = get_args(Source)
RAMP = 0.1
"""Share of the training over which a source that has opened grows to its weight."""
MOMENTS: dict[Source, float] = {"object_centric": 0.0, "mosaic": 0.0, "referring": 0.5}
"""When each source opens, easiest first."""
WEIGHTS: dict[Source, float] = {"object_centric": 1.0, "mosaic": 4.0, "referring": 2.0}
"""Of each source in a batch. Mosaics alone have true negatives, and twice the same thing."""
PARAPHRASE = 0.9
"""Cosine of CLIP's text embeddings from which two sentences of one image are taken to say the same."""


@dataclass(frozen=True)
class Opening:
    """A source, the moment in [0, 1] at which it opens, and its weight against the others' once it has."""

    source: Source
    at: float
    weight: float

    def __post_init__(self) -> None:
        if not 0 <= self.at < 1:
            raise ValueError(f"curriculum: {self.source} opens at {self.at}, not in [0, 1)")
        if self.weight <= 0:
            raise ValueError(f"curriculum: the weight of {self.source} must be positive, got {self.weight}")


@dataclass(frozen=True)
class Curriculum:
    """The sources with their openings, and how many referring pairs are admitted.

    first, last: the share of the referring pairs admitted when they open, and at the end of the training.
    """

    openings: tuple[Opening, ...]
    first: float = 0.3
    last: float = 0.8

    def __post_init__(self) -> None:
        named = [opening.source for opening in self.openings]
        if not named or len(set(named)) < len(named):
            raise ValueError(f"curriculum: every source once, at least one, got {named}")
        if min(opening.at for opening in self.openings) > 0:
            raise ValueError("curriculum: no source is open at the start")
        if not 0 <= self.first <= self.last <= 1:
            raise ValueError(f"curriculum: 0 <= first <= last <= 1, got {self.first}, {self.last}")

    def shares(self, progress: float) -> dict[Source, float]:
        """The share of a batch that comes from each source at `progress` in [0, 1]; they sum to 1."""
        grown: dict[Source, float] = {o.source: o.weight * self._grown(o, progress) for o in self.openings}
        total = sum(grown.values())
        return {source: weight / total for source, weight in grown.items()}

    @staticmethod
    def _grown(opening: Opening, progress: float) -> float:
        if opening.at == 0:
            return 1.0  # open from the start, and whole
        return min(1.0, max(0.0, (progress - opening.at) / RAMP))

    def admitted(self, progress: float, confidence: Float[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """The referring pairs let in at `progress`: the most confident, ties to the earlier one.

        A confidence of 0 (no mask was found, or it was taken back) is never let in.
        """
        opening = next((o for o in self.openings if o.source == "referring"), None)
        chosen = np.zeros(len(confidence), bool)
        if opening is None or progress < opening.at:
            return chosen
        through = (progress - opening.at) / (1 - opening.at)
        count = int((self.first + (self.last - self.first) * through) * len(confidence))
        chosen[np.argsort(-confidence, kind="stable")[:count]] = True
        return chosen & (confidence > 0)


def ordered(order: Order, sources: Sequence[Source]) -> Curriculum:
    """The curriculum over `sources`, given easiest first: in that order, all together, or the other way
    round.
    """
    moments = [MOMENTS[source] - MOMENTS[sources[0]] for source in sources]
    if order == "together":
        moments = [0.0] * len(sources)
    if order == "hardest_first":
        moments.reverse()
    return Curriculum(tuple(Opening(s, at, WEIGHTS[s]) for s, at in zip(sources, moments, strict=True)))


def confidence(witnesses: Float[np.ndarray, "n w"]) -> Float[np.ndarray, " n"]:
    """How far the mask of each pair is to be believed, in [0, 1]: the geometric mean of its witnesses, each
    best at 1. What is below 0, or not a number, counts as 0.
    """
    shares = np.clip(np.nan_to_num(witnesses.astype(np.float64), nan=0.0), 0, 1)
    return shares.prod(1) ** (1 / witnesses.shape[1])


def taken_back(
    overlap: Float[np.ndarray, "n n"],
    likeness: Float[np.ndarray, "n n"],
    confidence: Float[np.ndarray, " n"],
    conflict: float,
) -> Bool[np.ndarray, " n"]:
    """Sentences of one image whose mask another sentence has the better claim to.

    overlap: IoU of their masks. likeness: cosines of their sentences. Two sentences that are no paraphrases
    of each other should not have one mask: the less confident loses its own, ties go to the earlier.
    """
    lost = np.zeros(len(confidence), bool)
    order = np.argsort(-confidence, kind="stable")
    for place, i in enumerate(order):
        for j in order[:place]:
            rivals = overlap[i, j] >= conflict and likeness[i, j] < PARAPHRASE
            lost[i] |= bool(rivals and not lost[j])
    return lost
